package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/mobileops/mobileops/internal/cli/compat"
	"github.com/mobileops/mobileops/internal/plugin/catalogue"
	"github.com/mobileops/mobileops/internal/supervise"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// scripts is where the conversations of a user with mobileops stand.
const scripts = "../../testdata/script"

func TestMain(m *testing.M) {
	commands := map[string]func(){"mobileops": main, "seed-findings": seedFindings, "hold-state": holdState, "age-memory": ageMemory, "stubborn": stubborn, "anchor-server": anchorServer}
	for _, s := range compat.Scripts() {
		commands[s.Name] = main // by these names it is called through links
	}
	testscript.Main(m, commands)
}

// TestScript plays testdata/script/*.txtar. Beside the commands of the
// testscript package these are known; each leaves stdout and stderr behind:
//
//	status N COMMAND…            the command's exit status is exactly N
//	pty [-cols N] [-type TEXT] N COMMAND…
//	                             the same in a terminal of N columns; TEXT is typed, \n is Enter
//	unprivileged N COMMAND…      the same as a user without rights; fails the test when not root
//	jsonget FILE PATH [VALUE]    the value at a path such as .changes.0.kind (length counts), or that it is VALUE
//	schema SCHEMA FILE           FILE satisfies the JSON schema in SCHEMA
//	database FILE HOURS [COUNT]  makes FILE, db.tar.gz with a vulnerability database that was built HOURS ago
//
// FILE may be stdout. The conditions [root], [shell:NAME], [scan], that
// mobileops-scan is built, and [loginuid], that the login uid of a process can be
// chosen, are known. HOME,
// the state directory and the configuration file stand inside $WORK.
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 scripts,
		RequireExplicitExec: false,
		Setup:               setup,
		Condition:           condition,
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"status":       cmdStatus,
			"database":     cmdDatabase,
			"pty":          cmdPTY,
			"unprivileged": cmdUnprivileged,
			"jsonget":      cmdJSONGet,
			"schema":       cmdSchema,
		},
	})
}

func setup(env *testscript.Env) error {
	// A script that fails may leave the supervisor that it began.
	env.Defer(func() {
		for _, dir := range []string{"run", filepath.Join("state", "run")} {
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			if client, err := supervise.Dial(ctx, filepath.Join(env.WorkDir, dir, "plugins.sock")); err == nil {
				_ = client.Shutdown(ctx)
			}
			cancel()
		}
	})
	home := filepath.Join(env.WorkDir, "home")
	conf := filepath.Join(env.WorkDir, "config.yaml")
	if err := os.MkdirAll(home, 0o755); err != nil {
		return err
	}
	// Root's usual places are those of this host; nothing here may touch them.
	if err := os.WriteFile(conf, []byte("# nothing is configured\n"), 0o644); err != nil {
		return err
	}
	for _, v := range [][2]string{
		{"HOME", home}, {"USER", os.Getenv("USER")}, {"TERM", "xterm-256color"}, {"LC_ALL", "C.UTF-8"},
		{"MOBILEOPS_CONFIG", conf}, {"MOBILEOPS_STATE_DIR", filepath.Join(env.WorkDir, "state")},
		{"MOBILEOPS_SCAN_WORKER", scanWorker()},
		// How full the disk of this machine is, is no part of any script.
		{"MOBILEOPS_LOGS_RESERVE", "1MB"},
		{"SCHEMAS", filepath.Join(mustAbs(scripts), "..", "schema")},
	} {
		env.Setenv(v[0], v[1])
	}
	// An unprivileged user must be able to reach its files and the binary.
	for dir := env.WorkDir; dir != filepath.Dir(dir) && dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			return err
		}
	}
	if bin, err := exec.LookPath("mobileops"); err == nil {
		return os.Chmod(filepath.Dir(filepath.Dir(bin)), 0o755)
	}
	return nil
}

// scanWorker is the program with Trivy in it, where make puts it.
func scanWorker() string { return mustAbs("../../bin/mobileops-scan") }

func mustAbs(path string) string {
	abs, err := filepath.Abs(path)
	if err != nil {
		panic(err)
	}
	return abs
}

func condition(cond string) (bool, error) {
	if name, ok := strings.CutPrefix(cond, "shell:"); ok {
		_, err := exec.LookPath(name)
		if err != nil {
			fmt.Fprintf(os.Stderr, "\n*** NOT RUN: parts of a script that need %s, which is not installed here (see make test) ***\n", name)
		}
		return err == nil, nil
	}
	if cond == "loginuid" {
		f, err := os.OpenFile("/proc/self/loginuid", os.O_WRONLY, 0)
		if err == nil {
			f.Close()
		}
		if err != nil || os.Geteuid() != 0 {
			fmt.Fprintf(os.Stderr, "\n*** NOT RUN: parts of a script that need login uids, which only root can choose, and only on a kernel that audits: %v ***\n", err)
		}
		return err == nil && os.Geteuid() == 0, nil
	}
	if cond == "scan" {
		_, err := os.Stat(scanWorker())
		if err != nil {
			fmt.Fprintln(os.Stderr, "\n*** NOT RUN: scripts that scan, for bin/mobileops-scan is not built (make scan-worker) ***")
		}
		return err == nil, nil
	}
	if cond == "bundle" {
		return catalogue.Included(), nil
	}
	if cond == "root" {
		return os.Geteuid() == 0, nil
	}
	return false, fmt.Errorf("unknown condition %q", cond)
}

// command makes a process with the script's directory and environment.
func command(ts *testscript.TestScript, args []string) *exec.Cmd {
	if len(args) < 1 {
		ts.Fatalf("no command")
	}
	path := args[0]
	if strings.Contains(path, "/") {
		path = ts.MkAbs(path)
	} else {
		for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
			if full := filepath.Join(dir, path); isExecutable(full) {
				path = full
				break
			}
		}
	}
	cmd := exec.Command(path, args[1:]...)
	cmd.Args[0] = args[0]
	cmd.Dir = ts.MkAbs(".")
	cmd.Env = environ(ts)
	return cmd
}

func isExecutable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0
}

// environ is the environment of the script, which testscript hands out to
// programs only.
func environ(ts *testscript.TestScript) []string {
	ts.Check(ts.Exec("env", "-0"))
	return strings.Split(strings.TrimSuffix(ts.ReadFile("stdout"), "\x00"), "\x00")
}

func checkStatus(ts *testscript.TestScript, want int, err error) {
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
		if got < 0 {
			ts.Fatalf("ended by %v", exit)
		}
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}

func cmdStatus(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N COMMAND…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	checkStatus(ts, want, ts.Exec(args[1], args[2:]...))
}

// nobody is a user id that owns nothing.
const nobody = 65534

func cmdUnprivileged(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: unprivileged N COMMAND…")
	}
	cmd := command(ts, args[1:])
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	cmd.Stdout, cmd.Stderr = ts.Stdout(), ts.Stderr()
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	checkStatus(ts, want, cmd.Run())
}

func cmdPTY(ts *testscript.TestScript, neg bool, args []string) {
	columns, typed := uint16(80), ""
	for len(args) > 1 && strings.HasPrefix(args[0], "-") {
		switch args[0] {
		case "-cols":
			n, err := strconv.ParseUint(args[1], 10, 16)
			ts.Check(err)
			columns = uint16(n)
		case "-type":
			typed = strings.ReplaceAll(args[1], `\n`, "\n")
		default:
			ts.Fatalf("unknown flag %s", args[0])
		}
		args = args[2:]
	}
	if neg || len(args) < 2 {
		ts.Fatalf("usage: pty [-cols N] [-type TEXT] N COMMAND…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	cmd := command(ts, args[1:])
	term, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 24, Cols: columns})
	ts.Check(err)
	defer term.Close()
	kill := time.AfterFunc(5*time.Minute, func() { cmd.Process.Kill() })
	defer kill.Stop()
	go io.WriteString(term, typed)
	read := make(chan struct{})
	go func() {
		io.Copy(ts.Stdout(), term) // ends with EIO when nobody has the other side open
		close(read)
	}()
	err = cmd.Wait()
	select {
	case <-read:
	case <-time.After(time.Minute):
		ts.Fatalf("something that the command started still has the terminal open")
	}
	checkStatus(ts, want, err)
}

func readJSON(ts *testscript.TestScript, file string) any {
	dec := json.NewDecoder(strings.NewReader(ts.ReadFile(file)))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		ts.Fatalf("%s: %v", file, err)
	}
	return v
}

func cmdJSONGet(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 && len(args) != 3 {
		ts.Fatalf("usage: jsonget FILE PATH [VALUE]")
	}
	v := readJSON(ts, args[0])
	for step := range strings.SplitSeq(strings.TrimPrefix(args[1], "."), ".") {
		found := false
		switch at := v.(type) {
		case map[string]any:
			v, found = at[step]
		case []any:
			if step == "length" {
				v, found = json.Number(strconv.Itoa(len(at))), true
			} else if i, err := strconv.Atoi(step); err == nil && i >= 0 && i < len(at) {
				v, found = at[i], true
			}
		}
		if !found {
			if neg && len(args) == 2 {
				return
			}
			ts.Fatalf("%s has no %s (at %s)", args[0], args[1], step)
		}
	}
	got, ok := v.(string)
	if !ok {
		text, err := json.Marshal(v)
		ts.Check(err)
		got = string(text)
	}
	if len(args) == 2 {
		if neg {
			ts.Fatalf("%s has %s: %s", args[0], args[1], got)
		}
		fmt.Fprintln(ts.Stdout(), got)
		return
	}
	if (got == args[2]) == neg {
		ts.Fatalf("%s is %q, and %q was named", args[1], got, args[2])
	}
}

func cmdSchema(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: schema SCHEMA FILE")
	}
	compiler := jsonschema.NewCompiler()
	schema, err := jsonschema.UnmarshalJSON(strings.NewReader(ts.ReadFile(args[0])))
	ts.Check(err)
	ts.Check(compiler.AddResource("schema.json", schema))
	compiled, err := compiler.Compile("schema.json")
	ts.Check(err)
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(ts.ReadFile(args[1])))
	ts.Check(err)
	if err := compiled.Validate(doc); (err == nil) == neg {
		ts.Fatalf("%s: %v", args[1], err)
	}
}
