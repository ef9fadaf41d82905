package cli

import (
	"slices"
	"testing"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

func TestNounIsKnownBeforeTheTree(t *testing.T) {
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"network", "isolate"}, "network"},
		{[]string{"network"}, "network"},
		{[]string{"version"}, "version"},
		{[]string{"netwrok", "isolate"}, ""}, // all of them may be meant
		{[]string{"--quiet", "network", "isolate"}, ""},
		{[]string{"help", "network"}, ""},
		{[]string{"docs", "man", "network"}, ""},
		{[]string{"compat", "list"}, ""},
		{[]string{"completion", "bash"}, ""},
		{[]string{"__complete", "network", ""}, "network"},
		{[]string{"__completeNoDesc", "network", "isolate", "--al"}, "network"},
		{[]string{"__complete", "network"}, ""},
		{[]string{"__complete", ""}, ""},
		{[]string{"__complete"}, ""},
		{nil, ""},
	} {
		if got := named(append([]string{"/usr/bin/mobileops"}, tc.args...)); got != tc.want {
			t.Errorf("%q: %q, want %q", tc.args, got, tc.want)
		}
	}
	if got := named([]string{"./network_configure.sh", "network"}); got != "" {
		t.Errorf("by the name of a script: %q", got)
	}
}

// Whoever asks with one noun alone is told the same as with all of them.
func TestOneNounIsAsAllOfThem(t *testing.T) {
	for _, n := range nouns() {
		say := func(only string, args ...string) string {
			streams, out, errs := ui.Test(nil)
			a := app.New(streams, func(string) string { return "" })
			root := newTree(a, only)
			root.SetOut(streams.Out)
			root.SetErr(streams.Err)
			where, err := execute(t.Context(), a, root, append([]string{"mobileops"}, args...))
			report(streams, where, err)
			return out.String() + errs.String()
		}
		streams, _, _ := ui.Test(nil)
		tree := newTree(app.New(streams, func(string) string { return "" }), n.name)
		i := slices.IndexFunc(tree.Commands(), func(c *cobra.Command) bool { return c.Name() == n.name })
		if i < 0 || len(tree.Commands()) != 1 {
			t.Fatalf("%s alone has %d commands", n.name, len(tree.Commands()))
		}
		calls := [][]string{{n.name, "--help"}, {n.name, "--nonsense"}, {n.name, "nonsense"}, {"__complete", n.name, ""}, {"__complete", n.name, "--"}}
		for _, verb := range tree.Commands()[i].Commands() {
			calls = append(calls, []string{n.name, verb.Name(), "--help"}, []string{n.name, verb.Name(), "--nonsense"}, []string{"__complete", n.name, verb.Name(), "--"})
		}
		for _, args := range calls {
			if n.looksAround && args[len(args)-1] != "--help" {
				continue // "nonsense" could be a command's argument, or a shell's name
			}
			if alone, all := say(n.name, args...), say("", args...); alone != all {
				t.Errorf("%q: alone:\n%s\nwith all:\n%s", args, alone, all)
			}
		}
	}
}
