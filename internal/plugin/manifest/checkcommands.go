package manifest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/mobileops/mobileops/internal/document"
)

// reservedFlags are the flags of every command of mobileops, and those that
// the command line makes itself, with their letters.
func reservedFlags() map[string]string {
	return map[string]string{
		"help": "h", "config": "", "state-dir": "", "root": "", "lock-timeout": "",
		"no-color": "", "quiet": "q", "output": "", "version": "",
	}
}

// reservedCommands are verbs that the command line gives to every noun.
func reservedCommands() []string { return []string{"help", "completion"} }

func (m *Manifest) checkCommands(bad report) {
	if !count(bad, "commands", len(m.Commands), maxCommands) {
		return
	}
	seen := map[string]bool{}
	for i := range m.Commands {
		c, where := &m.Commands[i], fmt.Sprintf("commands[%d]", i)
		switch name := join(where, "name"); {
		case c.Name != "" && (!isName(c.Name) || len(c.Name) > maxWord):
			bad(name, "%s is not 1 to %d lower-case letters and digits, with single hyphens between", quote(c.Name), maxWord)
		case slices.Contains(reservedCommands(), c.Name):
			bad(name, "%s is a command that mobileops makes itself; take another name", quote(c.Name))
		case seen[c.Name]:
			bad(name, "%s is there twice", quote(c.Name))
		}
		seen[c.Name] = true
		c.check(bad, where, m.Name)
	}
}

func (c *Command) check(bad report, where, plugin string) {
	checkSummary(bad, join(where, "summary"), c.Summary, true)
	checkLine(bad, join(where, "usage"), c.Usage, maxText)
	c.Args.check(bad, join(where, "args"))
	if count(bad, join(where, "examples"), len(c.Examples), maxExamples) {
		for i, e := range c.Examples {
			at := fmt.Sprintf("%s.examples[%d]", where, i)
			if checkLine(bad, at, e, maxText) && !strings.Contains(e, "mobileops "+plugin) {
				bad(at, "%s does not call mobileops %s", quote(e), document.Printable(plugin))
			}
		}
	}
	if !count(bad, join(where, "flags"), len(c.Flags), maxFlags) {
		return
	}
	long, short := map[string]bool{}, map[string]bool{}
	for i := range c.Flags {
		f, where := &c.Flags[i], fmt.Sprintf("%s.flags[%d]", where, i)
		f.check(bad, where)
		if long[f.Name] {
			bad(join(where, "name"), "--%s is there twice", document.Printable(f.Name))
		}
		if f.Short != "" && short[f.Short] {
			bad(join(where, "short"), "-%s is there twice", document.Printable(f.Short))
		}
		long[f.Name], short[f.Short] = true, true
	}
}

func (a *Args) check(bad report, where string) {
	switch {
	case a.Min < 0 || a.Min > maxWords:
		bad(join(where, "min"), "is %d; it is from 0 to %d", a.Min, maxWords)
	case a.Max < -1 || a.Max > maxWords:
		bad(join(where, "max"), "is %d; it is from 0 to %d, or -1 for any number", a.Max, maxWords)
	case a.Max >= 0 && a.Max < a.Min:
		bad(join(where, "max"), "is %d, less than min (%d)", a.Max, a.Min)
	}
	if a.Complete != "" && !checkChoice(bad, join(where, "complete"), a.Complete, CompleteNone, CompleteFiles, CompleteDirs, CompleteWords) {
		return
	}
	switch words := join(where, "words"); {
	case a.Complete == CompleteWords && len(a.Words) == 0:
		bad(words, "is missing: complete is words")
	case a.Complete != CompleteWords && len(a.Words) > 0:
		bad(words, "is for complete: words")
	default:
		checkChoices(bad, words, a.Words)
	}
}

// activeHelp begins what cobra's completion takes for a message to the user.
const activeHelp = "_activeHelp_ "

// checkChoices reports what is wrong with words among which people choose.
func checkChoices(bad report, where string, list []string) {
	checkDistinct(bad, where, list, maxWords, func(at, s string) {
		if s == "" {
			bad(at, "is empty")
		}
		if strings.HasPrefix(s, activeHelp) {
			bad(at, "begins with %s, which the shell would show as a hint instead of offering the word", quote(strings.TrimSpace(activeHelp)))
		}
		checkLine(bad, at, s, maxText)
	})
}

func (f *Flag) check(bad report, where string) {
	reserved := reservedFlags()
	_, taken := reserved[f.Name]
	switch name := join(where, "name"); {
	case f.Name == "":
		bad(name, "is missing")
	case len(f.Name) < 2 || len(f.Name) > maxWord || !isName(f.Name):
		bad(name, "%s is not 2 to %d lower-case letters and digits, with single hyphens between (and none before them)", quote(f.Name), maxWord)
	case taken:
		bad(name, "--%s is a flag of every command of mobileops; take another name", f.Name)
	}
	if f.Short != "" {
		switch short := join(where, "short"); {
		case len(f.Short) != 1 || !strings.Contains("abcdefghijklmnopqrstuvwxyz", strings.ToLower(f.Short)):
			bad(short, "%s is not one letter", quote(f.Short))
		case f.Short == reserved["help"] || f.Short == reserved["quiet"]:
			bad(short, "-%s is a flag of every command of mobileops; take another letter", f.Short)
		}
	}
	checkSummary(bad, join(where, "summary"), f.Summary, true)
	if !checkChoice(bad, join(where, "type"), f.Type, FlagBool, FlagString, FlagInt, FlagDuration, FlagChoice, FlagFile, FlagDir) {
		return
	}
	switch choices := join(where, "choices"); {
	case f.Type == FlagChoice && len(f.Choices) == 0:
		bad(choices, "is missing: the type is choice")
	case f.Type != FlagChoice && len(f.Choices) > 0:
		bad(choices, "is for type: choice")
	default:
		checkChoices(bad, choices, f.Choices)
	}
	if f.Required && f.Type == FlagBool {
		bad(join(where, "required"), "makes no sense of a bool, which is false unless it is given")
	}
	if f.Default != "" {
		f.checkDefault(bad, join(where, "default"))
	}
}

func (f *Flag) checkDefault(bad report, where string) {
	if f.Required {
		bad(where, "makes no sense of a flag that is required")
		return
	}
	if !checkLine(bad, where, f.Default, maxText) {
		return
	}
	var err error
	switch f.Type {
	case FlagBool:
		_, err = parseBool(f.Default)
	case FlagInt:
		_, err = parseInt(f.Default)
	case FlagDuration:
		_, err = parseDuration(f.Default)
	case FlagChoice:
		if !slices.Contains(f.Choices, f.Default) {
			err = fmt.Errorf("is not among the choices")
		}
	}
	if err != nil {
		bad(where, "%s %v", quote(f.Default), err)
	}
}
