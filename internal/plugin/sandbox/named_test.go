package sandbox

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestNamedByPrograms lists a program of its own that a hostile one may run, and
// has that name, as its interpreter or dynamic linker, what it wants to read.
func TestNamedByPrograms(t *testing.T) {
	needsLayers(t)
	dir := reachable(t)
	secret := write(t, filepath.Join(dir, "secret"), "kept from others\n", 0o644)
	script := write(t, filepath.Join(dir, "script"), "#!/bin/sh\n# kept from others\n", 0o750)
	for name, c := range map[string]struct{ content, target string }{
		"the root as its linker":             {linkedBy("/"), secret},
		"a file as its linker":               {linkedBy(secret), secret},
		"a file as its interpreter":          {"#!" + secret + "\n", secret},
		"a private script":                   {"#!" + script + "\n", script},
		"a file as what env runs":            {"#!/usr/bin/env ../.." + secret + "\n", secret},
		"a file as its interpreter's linker": {"#!" + write(t, filepath.Join(dir, "elf"), linkedBy(secret), 0o755) + "\n", secret},
	} {
		t.Run(name, func(t *testing.T) {
			tool := write(t, filepath.Join(reachable(t), "tool"), c.content, 0o755)
			_, out := run(t, Command{Program: "/bin/sh", Args: []string{"-c", "while read x; do echo $x; done <" + c.target}},
				Policy{Exec: []string{tool}, Account: own(), ReadAny: true})
			if strings.Contains(out, "kept from others") || !strings.Contains(strings.ToLower(out), "permission denied") {
				t.Errorf("%q", out)
			}
		})
	}
	// What is as it should be still runs.
	tool := write(t, filepath.Join(dir, "tool"), "#!/usr/bin/env sh\necho it runs\n", 0o755)
	if _, out := run(t, Command{Program: "/bin/sh", Args: []string{"-c", tool}, Env: []string{"PATH=/usr/bin:/bin"}}, Policy{Exec: []string{tool}, Account: own()}); out != "it runs\n" {
		t.Errorf("%q", out)
	}
	if _, err := os.Stat(secret); err != nil {
		t.Error(err)
	}
}

// linkedBy is the head of a program for whom a linker is named (elf(5)).
func linkedBy(linker string) string {
	head := make([]byte, 120)
	copy(head, "\x7fELF\x02\x01")
	head[32], head[56] = 64, 1          // where the one program header is
	head[64], head[72] = 3, 120         // PT_INTERP, and where its text is
	head[64+32] = byte(len(linker) + 1) // and its size
	return string(head) + linker + "\x00"
}
