package integrity

import (
	"os/exec"
	"strconv"
	"strings"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/integrity/watch"
)

// hook makes what --exec asks for; nil: nothing.
func (o *watchOptions) hook(a *app.App) (*watch.Hook, error) {
	if o.exec == "" {
		return nil, nil
	}
	words, err := splitWords(o.exec)
	if err != nil {
		return nil, err
	}
	program, err := exec.LookPath(words[0])
	if err != nil {
		return nil, failure.Errorf(failure.Usage, "--exec: %w", err)
	}
	words[0] = program
	limit, err := watchSpan("--exec-timeout", o.execTimeout, 0)
	if err != nil {
		return nil, err
	}
	// It gets what a command needs to work, and nothing that was meant for
	// mobileops alone.
	var base []string
	for _, name := range []string{"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TZ", "TMPDIR", "MOBILEOPS_STATE_DIR", "MOBILEOPS_CONFIG", "MOBILEOPS_LOG_DIR", "MOBILEOPS_RUN_DIR"} {
		if v := a.Getenv(name); v != "" {
			base = append(base, name+"="+v)
		}
	}
	return &watch.Hook{
		Args: words, Timeout: limit,
		Encode: func(r *watch.Record) ([]byte, error) { return encodeWatchRecord(r, o.name) },
		Env:    func(r *watch.Record) []string { return append(base[:len(base):len(base)], hookEnv(r, o.name)...) },
		Failed: func(r *watch.Record, reason string) {
			a.Streams.Notice("mobileops: integrity watch: --exec for %s: %s", r.Path, reason)
		},
	}, nil
}

// hookEnv is the record as environment variables.
func hookEnv(r *watch.Record, baseline string) []string {
	env := []string{
		"MOBILEOPS_BASELINE=" + baseline, "MOBILEOPS_TYPE=" + string(r.Kind), "MOBILEOPS_SEVERITY=" + r.Severity.String(),
		"MOBILEOPS_PATH=" + string(r.Path), "MOBILEOPS_FROM=" + string(r.From), "MOBILEOPS_ACTION=" + r.Action, "MOBILEOPS_VERDICT=" + string(r.Verdict),
	}
	if p := r.Process; p != nil {
		env = append(env, "MOBILEOPS_PID="+strconv.Itoa(p.PID), "MOBILEOPS_EXE="+p.Exe)
		if p.UID >= 0 {
			env = append(env, "MOBILEOPS_UID="+strconv.Itoa(p.UID))
		}
	}
	return env
}

// splitWords cuts a command line into words at blanks. Within '…' and "…" blanks
// are part of a word, and a backslash outside of '…' takes away the meaning of
// the next character. Nothing else is special: there is no shell.
func splitWords(s string) ([]string, error) {
	var words []string
	var word strings.Builder
	in, quote := false, rune(0)
	escaped := false
	for _, r := range s {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'':
			in, escaped = true, true
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			in, quote = true, r
		case r == ' ' || r == '\t' || r == '\n':
			if in {
				words = append(words, word.String())
				word.Reset()
				in = false
			}
		default:
			in = true
			word.WriteRune(r)
		}
	}
	if quote != 0 || escaped {
		return nil, failure.Errorf(failure.Usage, "--exec %q: a quote or a backslash at the end is not closed", s)
	}
	if in {
		words = append(words, word.String())
	}
	if len(words) == 0 || words[0] == "" {
		return nil, failure.Errorf(failure.Usage, "--exec %q: there is no command in it", s)
	}
	return words, nil
}
