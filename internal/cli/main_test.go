package cli

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mobileops/mobileops/internal/audit"
	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

// trial runs one command of its own within the real tree.
type trial struct {
	spec  app.Spec
	flags func(cmd *cobra.Command)
	run   func(a *app.App) error
	state string // the state directory; made up when empty

	out, errs string
	status    int
}

func (tr *trial) try(t *testing.T, args ...string) {
	t.Helper()
	if tr.state == "" {
		tr.state = filepath.Join(t.TempDir(), "state")
	}
	conf := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(conf, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	streams, out, errs := ui.Test(nil)
	a := app.New(streams, func(name string) string {
		return map[string]string{"MOBILEOPS_STATE_DIR": tr.state, "MOBILEOPS_CONFIG": conf, "SSH_CONNECTION": "192.0.2.7 5022 192.0.2.1 22"}[name]
	})
	root := NewRoot(a)
	spec := tr.spec
	spec.Use, spec.Short, spec.Args = "trial", "Try something", cobra.ArbitraryArgs
	spec.Run = func(context.Context, []string) error { return tr.run(a) }
	cmd := a.Command(spec)
	if tr.flags != nil {
		tr.flags(cmd)
	}
	root.AddCommand(cmd)
	where, err := execute(t.Context(), a, root, append([]string{"mobileops", "trial"}, args...))
	report(streams, where, err)
	tr.status, tr.out, tr.errs = failure.KindOf(err).Status(), out.String(), errs.String()
}

// records returns what the audit chain holds.
func (tr *trial) records(t *testing.T) (list []audit.Record) {
	t.Helper()
	chain := audit.New(state.New(tr.state, state.Options{}), audit.Options{LogDir: filepath.Join(tr.state, "log")})
	if err := chain.Records(t.Context(), func(r audit.Record) error { list = append(list, r); return nil }); err != nil {
		t.Fatal(err)
	}
	return list
}

func TestErrorsAreOneLineWithAStatus(t *testing.T) {
	for _, tc := range []struct {
		err    error
		status int
		says   string
	}{
		{nil, 0, ""},
		{failure.Silent(failure.No), 1, ""},
		{failure.Hint(failure.New(failure.NotReady, `no baseline named "default"`), "create one: mobileops integrity baseline"), 7,
			"mobileops: trial: no baseline named \"default\" (create one: mobileops integrity baseline)\n"},
		{errors.Join(errors.New("one"), errors.New("two")), 3, "mobileops: trial: one\nmobileops: trial: two\n"},
		{failure.Errorf(failure.Failed, "hash: %w", context.Canceled), 130, "mobileops: trial: hash: interrupted\n"},
		{errors.New("open /tmp/a\nb\x1b[2J: denied"), 3, "mobileops: trial: open /tmp/a\\nb\\x1b[2J: denied\n"},
	} {
		tr := trial{run: func(*app.App) error { return tc.err }}
		tr.try(t)
		if tr.status != tc.status || tr.errs != tc.says || tr.out != "" {
			t.Errorf("%v: status %d, %q; want %d, %q", tc.err, tr.status, tr.errs, tc.status, tc.says)
		}
	}
}

func TestAPanicIsAFailureAndNotAUsageError(t *testing.T) {
	tr := trial{run: func(*app.App) error { panic("boom") }}
	tr.try(t)
	if tr.status != 3 || !strings.Contains(tr.errs, "mobileops: trial: internal error: boom\n") || !strings.Contains(tr.errs, "main_test.go") {
		t.Errorf("status %d: %s", tr.status, tr.errs)
	}
}

func TestAnActIsRecordedWithoutItsSecrets(t *testing.T) {
	var token, name string
	tr := trial{
		spec: app.Spec{Audited: true},
		flags: func(cmd *cobra.Command) {
			app.Secret(cmd.Flags(), &token, "token", "the token")
			cmd.Flags().StringVar(&name, "name", "", "a name")
		},
		run: func(a *app.App) error {
			a.SetResult("%d things done", 3)
			return failure.Silent(failure.No)
		},
	}
	tr.try(t, "--token", "hunter2", "--name=web", "-q", "https://me:hunter2@example.org/x", "plain")
	if tr.status != 1 || tr.errs != "" {
		t.Fatalf("status %d: %s", tr.status, tr.errs)
	}
	records := tr.records(t)
	if len(records) != 1 {
		t.Fatalf("%d records", len(records))
	}
	r := records[0]
	if r.Command != "trial" || r.Status != 1 || r.Result != "3 things done" || r.Actor.UID != os.Getuid() || r.Actor.Remote != "192.0.2.7" || r.Time.IsZero() {
		t.Errorf("%+v", r)
	}
	args := strings.Join(r.Args, " ")
	if strings.Contains(args, "hunter2") || !strings.Contains(args, "--token=") || !strings.Contains(args, "--name=web") || !strings.Contains(args, "--quiet") || !strings.HasSuffix(args, " plain") {
		t.Errorf("%q", r.Args)
	}
}

func TestAFailedAndAnInterruptedActAreRecorded(t *testing.T) {
	for err, status := range map[error]int{errors.New("disk on fire"): 3, context.Canceled: 130} {
		tr := trial{spec: app.Spec{Audited: true}, run: func(*app.App) error { return err }}
		tr.try(t)
		records := tr.records(t)
		if tr.status != status || len(records) != 1 || records[0].Status != status || records[0].Result == "" {
			t.Errorf("%v: status %d, %+v", err, tr.status, records)
		}
	}
}

func TestOnlyActsAreRecorded(t *testing.T) {
	tr := trial{spec: app.Spec{Audited: true}, run: func(a *app.App) error { a.OnlyLooked(); return nil }}
	tr.try(t)
	tr.try(t, "--no-such-flag")
	if _, err := os.Stat(tr.state); err == nil {
		t.Error("a dry run or a usage error left a record")
	}
}

func TestAnActThatCannotBeRecordedIsNoSuccess(t *testing.T) {
	for _, tc := range []struct {
		outcome error
		status  int
	}{{nil, 3}, {failure.Silent(failure.No), 3}, {failure.New(failure.NotReady, "nothing there"), 7}} {
		tr := trial{spec: app.Spec{Audited: true}, state: "/proc/nowhere", run: func(*app.App) error { return tc.outcome }}
		tr.try(t)
		if tr.status < tc.status || !strings.Contains(tr.errs, "mobileops: trial: what was done could not be recorded in the audit chain: ") {
			t.Errorf("%v: status %d: %s", tc.outcome, tr.status, tr.errs)
		}
	}
}

// The act is in the chain, only the head is not signed: the message must not
// say that it could not be recorded.
func TestAnActIsRecordedThoughItsHeadCannotBeSigned(t *testing.T) {
	tr := trial{spec: app.Spec{Audited: true}, run: func(*app.App) error { return nil }, state: filepath.Join(t.TempDir(), "state")}
	if err := os.MkdirAll(tr.state, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(tr.state, "log"), nil, 0o600); err != nil { // where the head would go
		t.Fatal(err)
	}
	tr.try(t)
	if tr.status != 3 || !strings.Contains(tr.errs, "record 1 was written, but the head of the audit chain was not signed") || strings.Contains(tr.errs, "could not be recorded") {
		t.Errorf("status %d: %s", tr.status, tr.errs)
	}
	if n := len(tr.records(t)); n != 1 {
		t.Errorf("%d records", n)
	}
}

// Every command keeps to the shape of a command, whoever added it.
func TestEveryCommandIsDescribed(t *testing.T) {
	streams, _, _ := ui.Test(nil)
	a := app.New(streams, func(string) string { return "" })
	root := NewRoot(a)
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		for _, c := range cmd.Commands() {
			walk(c)
		}
		path := cmd.CommandPath()
		if cmd.Short == "" || strings.HasSuffix(cmd.Short, ".") || strings.Contains(cmd.Short, "\n") {
			t.Errorf("%s: the sentence is %q", path, cmd.Short)
		}
		s := a.SpecOf(cmd)
		if s == nil {
			if !cmd.HasSubCommands() {
				t.Errorf("%s does nothing", path)
			}
			return
		}
		if s.Hidden {
			return
		}
		help := a.HelpOf(cmd)
		if len(help.Examples) == 0 {
			t.Errorf("%s has no example", path)
		}
		for _, e := range help.Examples {
			if e.Command != "" && !strings.Contains(e.Command, "mobileops") && !strings.HasPrefix(e.Command, "minisign ") { // its peer
				t.Errorf("%s: %q is no example of it", path, e.Command)
			}
		}
		for i, st := range help.Statuses {
			if !slices.ContainsFunc(failure.Table(), func(m failure.Meaning) bool { return m.Status == st.Code }) || i > 0 && help.Statuses[i-1].Code >= st.Code {
				t.Errorf("%s: status %d", path, st.Code)
			}
		}
		for _, f := range help.Files {
			if f.Use == "" {
				t.Errorf("%s: the file %q has no use", path, f.Path)
			}
		}
		for _, f := range help.Flags {
			if f.Usage == "" {
				t.Errorf("%s: %s has no description", path, f.Typed)
			}
		}
	}
	walk(root)
}
