// Command call measures what a sandboxed call costs beside a plain fork and
// exec of the same program, and what a whole call of a plugin costs beside both:
// with signature, manifest and every file proved, and the protocol served. Each
// round runs everything once, in turn. It needs root, as accounts and an empty
// network are part of what is measured.
//
//	go run ./bench/plugin/call
//	go run ./bench/plugin/call -rounds 1000
//
// What is written to standard output is one line of JSON for each; the table is
// on standard error.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/mobileops/mobileops/internal/plugin"
	"github.com/mobileops/mobileops/internal/plugin/host"
	"github.com/mobileops/mobileops/internal/plugin/pack"
	"github.com/mobileops/mobileops/internal/plugin/sandbox"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/mobileops/mobileops/internal/trust"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("bench: ")
	rounds := flag.Int("rounds", 500, "rounds")
	flag.Parse()
	dir, err := os.MkdirTemp("", "mobileops-bench-call-")
	if err != nil {
		log.Fatal(err)
	}
	if err = os.Chmod(dir, 0o755); err == nil {
		err = measure(dir, *rounds)
	}
	os.RemoveAll(dir)
	if err != nil {
		log.Fatal(err)
	}
}

// limits are those of a plugin that says nothing about them.
var limits = sandbox.Limits{Memory: 256 << 20, CPU: time.Minute, Tasks: 128, Files: 256, FileBytes: 1 << 30}

// way is a way to run a program.
type way struct {
	Name    string  `json:"name"`
	Program string  `json:"program"`
	Median  float64 `json:"median_ms"`
	Min     float64 `json:"min_ms"`
	P90     float64 `json:"p90_ms"`
	Ratio   float64 `json:"ratio"` // median beside that of plain

	run  func() error
	wall []time.Duration
}

func measure(dir string, rounds int) error {
	goProgram := filepath.Join(dir, "mobileops-empty")
	source := filepath.Join(dir, "main.go")
	if err := os.WriteFile(source, []byte("package main\n\nfunc main() {}\n"), 0o644); err != nil {
		return err
	}
	build := exec.Command("go", "build", "-ldflags", "-s -w", "-o", goProgram, source)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	engine, err := install(dir, goProgram)
	if err != nil {
		return err
	}
	var ways []*way
	for _, program := range []string{"/bin/true", goProgram} {
		ways = append(ways,
			&way{Name: "plain", Program: program, run: func() error { return exec.Command(program).Run() }},
			&way{Name: "sandbox, no cgroup", Program: program, run: func() error { l := limits; l.Memory, l.Tasks = 0, 0; return confined(program, l) }},
			&way{Name: "sandbox", Program: program, run: func() error { return confined(program, limits) }})
	}
	ways = append(ways, &way{Name: "plugin", Program: goProgram, run: func() error {
		run, err := engine.Start(context.Background(), "empty", plugin.Call{Role: host.RoleCommand})
		if err != nil {
			return err
		}
		status, err := run.Wait()
		if err == nil && status != 0 {
			err = fmt.Errorf("status %d", status)
		}
		return err
	}})
	const warmUp = 10
	for round := range rounds + warmUp {
		for _, w := range ways {
			began := time.Now()
			if err := w.run(); err != nil {
				return fmt.Errorf("%s: %w", w.Name, err)
			}
			if round >= warmUp {
				w.wall = append(w.wall, time.Since(began))
			}
		}
	}
	return report(ways)
}

func confined(program string, l sandbox.Limits) error {
	p, err := sandbox.Start(sandbox.Command{Program: program}, sandbox.Policy{Account: &sandbox.Account{UID: 60999, GID: 60999}, Limits: l})
	if err != nil {
		return err
	}
	e, err := p.Wait()
	if err == nil && e.Status != 0 {
		err = fmt.Errorf("status %#x", e.Status)
	}
	return err
}

// install makes a plugin of a program, and installs it.
func install(dir, program string) (*plugin.Engine, error) {
	ctx := context.Background()
	src := filepath.Join(dir, "src")
	data, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(src, 0o755); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(src, "mobileops-empty"), data, 0o755); err != nil {
		return nil, err
	}
	yaml := "schema: mobileops.plugin/v1\nname: empty\nversion: 1.0.0\nsummary: Do nothing\nlicence: Apache-2.0\ncommands: [{name: \"\", summary: Do nothing}]\n"
	if err := os.WriteFile(filepath.Join(src, "plugin.yaml"), []byte(yaml), 0o644); err != nil {
		return nil, err
	}
	secret, public, err := trust.SecretKeyFile(nil)
	if err != nil {
		return nil, err
	}
	key := filepath.Join(dir, "key")
	if err := os.WriteFile(key, secret, 0o600); err != nil {
		return nil, err
	}
	signer, err := trust.OpenSigner(ctx, key, nil)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if _, err := pack.Build(ctx, src, &out, pack.BuildOptions{Signer: signer, Sequence: 1, Expires: time.Now().AddDate(1, 0, 0).Truncate(time.Second)}); err != nil {
		return nil, err
	}
	e := plugin.New(plugin.Options{
		State: state.New(filepath.Join(dir, "state"), state.Options{}), Dir: filepath.Join(dir, "plugins"), ConfigDir: filepath.Join(dir, "config"),
		KeysDir: filepath.Join(dir, "keys"), Product: "dev", HostID: "bench",
	})
	pkg, err := pack.OpenReader(&out)
	if err != nil {
		return nil, err
	}
	plan, err := e.Inspect(ctx, pkg, plugin.Source{Text: "bench", Pinned: &public})
	if err != nil {
		return nil, err
	}
	defer plan.Close()
	_, err = e.Install(ctx, plan, plugin.Consent{Permissions: true, By: "bench"})
	return e, err
}

func report(ways []*way) error {
	lines := json.NewEncoder(os.Stdout)
	fmt.Fprintf(os.Stderr, "%-20s %-40s %8s %8s %8s %8s\n", "", "program", "median", "min", "p90", "ratio")
	plain := map[string]float64{}
	for _, w := range ways {
		slices.Sort(w.wall)
		ms := func(percent int) float64 { return w.wall[min(len(w.wall)*percent/100, len(w.wall)-1)].Seconds() * 1e3 }
		w.Median, w.Min, w.P90 = ms(50), ms(0), ms(90)
		w.Program = filepath.Base(w.Program)
		if w.Name == "plain" {
			plain[w.Program] = w.Median
		}
		w.Ratio = w.Median / plain[w.Program]
		if err := lines.Encode(w); err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "%-20s %-40s %8.3f %8.3f %8.3f %8.2f\n", w.Name, w.Program, w.Median, w.Min, w.P90, w.Ratio)
	}
	return nil
}
