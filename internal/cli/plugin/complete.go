package plugin

import (
	"context"
	"slices"
	"strings"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/plugin"
	"github.com/mobileops/mobileops/internal/plugin/catalogue"
)

// completer is a function that completes arguments.
type completer = func(ctx context.Context, args []string, typed string) []string

// completeInstalled completes arguments with the names of plugins that are
// installed.
func completeInstalled(a *app.App) completer { return completeWhich(a, 0, nil) }

// completeWhich completes as many arguments (0: any number) with the names of
// plugins that are installed and fit, but those that stand there already.
func completeWhich(a *app.App, most int, fits func(*plugin.Record) bool) completer {
	return func(ctx context.Context, args []string, _ string) (words []string) {
		if most > 0 && len(args) >= most {
			return nil
		}
		e, _, err := newEngine(a, nil)
		if err != nil {
			return nil
		}
		list, err := e.List(ctx)
		if err != nil {
			return nil
		}
		for _, r := range list {
			if !slices.Contains(args, r.Name) && (fits == nil || fits(r)) {
				words = append(words, r.Name+"\t"+r.Release.Version)
			}
		}
		return words
	}
}

// looksLikePath says whether somebody types a path.
func looksLikePath(typed string) bool { return strings.ContainsAny(typed, "/.~") }

// packageExtensions are those of the files that packages are.
func packageExtensions() []string { return []string{"tar.zst", "tar.gz"} }

// offered are the names of the catalogue, but those that are installed.
func offered(installed []string) (words []string) {
	items, err := catalogue.List()
	if err != nil {
		return nil
	}
	for _, i := range items {
		if !slices.Contains(installed, i.Name) && i.Planned == "" {
			words = append(words, i.Name+"\t"+i.Summary)
		}
	}
	return words
}

// names takes the descriptions off.
func names(words []string) (list []string) {
	for _, w := range words {
		name, _, _ := strings.Cut(w, "\t")
		list = append(list, name)
	}
	return list
}

// completePackages completes names of the catalogue, and files that could be
// packages.
func completePackages(a *app.App, installedToo bool) completer {
	installed := completeInstalled(a)
	return func(ctx context.Context, args []string, typed string) []string {
		if len(args) > 0 {
			return nil
		}
		if looksLikePath(typed) {
			return app.Files(packageExtensions()...)
		}
		here := installed(ctx, nil, typed)
		words := offered(names(here))
		if installedToo {
			words = append(here, words...)
		}
		if !slices.ContainsFunc(words, func(w string) bool { return strings.HasPrefix(w, typed) }) {
			return app.Files(packageExtensions()...)
		}
		return words
	}
}
