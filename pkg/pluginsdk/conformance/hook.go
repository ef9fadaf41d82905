package conformance

import (
	"encoding/json"
	"errors"
	"strings"

	"github.com/mobileops/mobileops/pkg/pluginsdk"
)

// hookInput returns what stands on the standard input of a hook for n events.
func (r *runner) hookInput(n int) string {
	var b strings.Builder
	if r.opts.Role != pluginsdk.RoleHook {
		return ""
	}
	switch r.opts.Hook {
	case "before", "after":
		run := pluginsdk.HookCommand{Command: "update apply", Args: []string{"--yes"}}
		if r.opts.Hook == "after" {
			run.Status = new(int)
		}
		b.Write(append(marshal(run), '\n'))
	case "schedule":
	default:
		for i := range n {
			e := sample(i)
			if r.opts.Hook == "audit" {
				e = sampleAct(i + 1)
			}
			b.Write(append(marshal(e), '\n'))
		}
	}
	return b.String()
}

// succeeds waits until the process ends, which has to be with status 0.
func (p *process) succeeds() error {
	if !p.wait(p.r.opts.Timeout) {
		return p.missing("it did not end", p.r.opts.Timeout)
	}
	if p.status() != 0 {
		return errors.New(p.ended())
	}
	return nil
}

// takes runs the plugin with some input.
func (r *runner) takes(input string) error {
	p, err := r.start("", strings.NewReader(input), behaviour{})
	if err != nil {
		return err
	}
	defer p.end()
	return p.succeeds()
}

func (r *runner) hook() error { return r.takes(r.hookInput(500)) }

func (r *runner) hookEmpty() error {
	if r.opts.Hook == "before" || r.opts.Hook == "after" {
		return notApplicable("a hook " + r.opts.Hook + " a command has always input")
	}
	return r.takes("")
}

func (r *runner) hookUnknown() error {
	input := r.hookInput(1)
	if input == "" {
		return notApplicable("a hook on a schedule has no input")
	}
	later := strings.TrimSuffix(input, "}\n") + `,"later":{"a":[1]}}` + "\n"
	if !json.Valid([]byte(later)) {
		return errors.New("the conformance test made no JSON")
	}
	if r.opts.Hook == "finding" || r.opts.Hook == "audit" {
		later += `{"id":"w-1","type":"conformance.weather","time":"2026-01-02T03:04:05Z","rain":true}` + "\n" +
			`{"id":"g-1","type":"gap","time":"2026-01-02T03:04:05Z","lost":12}` + "\n"
	}
	return r.takes(later)
}

// command runs a command of the plugin, which needs no more than its
// configuration.
func (r *runner) command() error { return r.takes("") }
