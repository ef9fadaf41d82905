// Command list measures what an administrator waits for: the catalogue searched,
// fifty installed plugins listed, help and completion of a plugin. Each round runs
// everything once, in turn, as whole processes.
//
//	go run ./bench/plugin/list -mobileops bin/mobileops
//
// What is written to standard output is one line of JSON for each; the table is
// on standard error.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("bench: ")
	rounds := flag.Int("rounds", 200, "rounds")
	binary := flag.String("mobileops", "bin/mobileops", "the binary")
	plugins := flag.Int("plugins", 50, "how many are installed")
	flag.Parse()
	dir, err := os.MkdirTemp("", "mobileops-bench-list-")
	if err != nil {
		log.Fatal(err)
	}
	if err = os.Chmod(dir, 0o755); err == nil {
		err = measure(dir, *binary, *plugins, *rounds)
	}
	os.RemoveAll(dir)
	if err != nil {
		log.Fatal(err)
	}
}

// host runs mobileops with everything beneath one directory.
type host struct{ binary, dir string }

func (h *host) run(args ...string) error {
	cmd := exec.Command(h.binary, args...)
	cmd.Dir = h.dir
	cmd.Env = append(os.Environ(), "HOME="+h.dir, "MOBILEOPS_STATE_DIR="+h.dir+"/state", "MOBILEOPS_LOG_DIR="+h.dir+"/log", "MOBILEOPS_RUN_DIR="+h.dir+"/run",
		"MOBILEOPS_PLUGIN_KEYS="+h.dir+"/keys", "MOBILEOPS_PLUGIN_CONFIG_DIR="+h.dir+"/config")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("mobileops %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// install makes plugins of a shell script each, and installs them.
func (h *host) install(n int) error {
	if err := h.run("update", "key", "generate", "key", "--no-password", "--quiet"); err != nil {
		return err
	}
	if err := h.run("plugin", "trust", "add", "key.pub", "--quiet"); err != nil {
		return err
	}
	for i := range n {
		name := fmt.Sprintf("plugin-%d", i)
		src := filepath.Join(h.dir, name)
		yaml := "schema: mobileops.plugin/v1\nname: " + name + "\nversion: 1.0.0\nsummary: Number " + fmt.Sprint(i) + "\nlicence: Apache-2.0\ncommands: [{name: show, summary: Show it}]\n"
		if err := os.Mkdir(src, 0o755); err != nil {
			return err
		}
		for file, text := range map[string]string{"plugin.yaml": yaml, "mobileops-" + name: "#!/bin/sh\nexit 0\n"} {
			if err := os.WriteFile(filepath.Join(src, file), []byte(text), 0o755); err != nil {
				return err
			}
		}
		if err := h.run("plugin", "pack", src, "--key", "key.key", "--sequence", "1", "--quiet"); err != nil {
			return err
		}
		if err := h.run("plugin", "install", "./"+name+"-1.0.0.plugin.tar.zst", "--accept-permissions", "--accept-unenforced", "--quiet"); err != nil {
			return err
		}
	}
	return nil
}

func measure(dir, binary string, plugins, rounds int) error {
	path, err := filepath.Abs(binary)
	if err != nil {
		return err
	}
	h := &host{path, dir}
	if err := h.install(plugins); err != nil {
		return err
	}
	calls := [][]string{
		{"version"}, {"plugin", "search"}, {"plugin", "list"}, {"__complete", ""}, {"__complete", "plugin-7", ""}, {"plugin-7", "--help"}, {"plugin-7", "show"},
	}
	walls := make([][]time.Duration, len(calls))
	const warmUp = 5
	for round := range rounds + warmUp {
		for i, call := range calls {
			began := time.Now()
			if err := h.run(call...); err != nil {
				return err
			}
			if round >= warmUp {
				walls[i] = append(walls[i], time.Since(began))
			}
		}
	}
	lines := json.NewEncoder(os.Stdout)
	fmt.Fprintf(os.Stderr, "%-40s %8s %8s %8s\n", fmt.Sprintf("%d installed", plugins), "median", "min", "p90")
	for i, call := range calls {
		slices.Sort(walls[i])
		ms := func(percent int) float64 {
			return walls[i][min(len(walls[i])*percent/100, len(walls[i])-1)].Seconds() * 1e3
		}
		r := struct {
			Line   string  `json:"line"`
			Median float64 `json:"median_ms"`
			Min    float64 `json:"min_ms"`
			P90    float64 `json:"p90_ms"`
		}{strings.Join(call, " "), ms(50), ms(0), ms(90)}
		if err := lines.Encode(r); err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "%-40s %8.2f %8.2f %8.2f\n", r.Line, r.Median, r.Min, r.P90)
	}
	return nil
}
