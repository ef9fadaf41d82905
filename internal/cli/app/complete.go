package app

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// completionTime bounds how long a completion may take before nothing is
// offered: a shell that hangs on Tab is worse than one that offers nothing.
const completionTime = time.Second

// Marks in the list that a completion function returns.
const (
	markFiles = "\x00files"
	markDirs  = "\x00dirs"
)

// Files is what a completion function returns when the argument is a path, of any
// file or only of those with one of the extensions (without the dot).
func Files(extensions ...string) []string {
	words := []string{markFiles}
	for _, e := range extensions {
		words = append(words, markFiles+e)
	}
	return words
}

// Dirs is what a completion function returns when the argument is a directory.
func Dirs() []string { return []string{markDirs} }

// FixedValues completes the first argument with one of a few words. A word may
// carry a description after a tab.
func FixedValues(words ...string) func(context.Context, []string, string) []string {
	return func(_ context.Context, args []string, _ string) []string {
		if len(args) > 0 {
			return nil
		}
		return words
	}
}

// CompleteValues completes a flag with one of a few words.
func CompleteValues(cmd *cobra.Command, flag string, words ...string) {
	must(cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)))
}

// CompleteFiles completes a flag with the names of files, of all or only of
// those with one of the extensions (without the dot).
func CompleteFiles(cmd *cobra.Command, flag string, extensions ...string) {
	must(cmd.RegisterFlagCompletionFunc(flag, func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		if len(extensions) == 0 {
			return nil, cobra.ShellCompDirectiveDefault
		}
		return extensions, cobra.ShellCompDirectiveFilterFileExt
	}))
}

// CompleteDirs completes a flag with the names of directories.
func CompleteDirs(cmd *cobra.Command, flag string) {
	must(cmd.RegisterFlagCompletionFunc(flag, func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return nil, cobra.ShellCompDirectiveFilterDirs
	}))
}

// CompleteFlag completes a flag with what fn finds, such as the names of
// baselines. Whatever goes wrong in fn, it is silent and offers nothing.
func (a *App) CompleteFlag(cmd *cobra.Command, flag string, fn func(ctx context.Context, args []string, toComplete string) []string) {
	must(cmd.RegisterFlagCompletionFunc(flag, a.completion(fn)))
}

// completion adapts a completion function to cobra.
func (a *App) completion(fn func(context.Context, []string, string) []string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, toComplete string) (found []string, directive cobra.ShellCompDirective) {
		directive = cobra.ShellCompDirectiveNoFileComp
		if fn == nil {
			return nil, directive
		}
		defer func() {
			if recover() != nil {
				found = nil
			}
		}()
		a.completing = true
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
		defer cancel()
		for _, word := range fn(ctx, args, toComplete) {
			extension, marked := strings.CutPrefix(word, markFiles)
			switch {
			case marked && extension != "":
				directive = cobra.ShellCompDirectiveFilterFileExt
				found = append(found, extension)
			case marked:
				directive = cobra.ShellCompDirectiveDefault
			case word == markDirs:
				directive = cobra.ShellCompDirectiveFilterDirs
			case strings.HasPrefix(word, toComplete):
				found = append(found, word)
			}
		}
		if len(found) > 0 && !slices.ContainsFunc(found, func(word string) bool { return !strings.HasSuffix(word, ":") }) {
			directive |= cobra.ShellCompDirectiveNoSpace // of "ip:" the value follows
		}
		return found, directive
	}
}
