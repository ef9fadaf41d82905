package blake3tree

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func fast() bool { return avx512 }

func forcePortable() (restore func()) {
	was := avx512
	avx512 = false
	return func() { avx512 = was }
}

// TestGenerated fails when kernel_amd64.s is not what command generate writes.
func TestGenerated(t *testing.T) {
	again := filepath.Join(t.TempDir(), "kernel_amd64.s")
	cmd := exec.Command("go", "run", "./generate", again)
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	want, err := os.ReadFile(again)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("kernel_amd64.s")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("kernel_amd64.s is not what command generate writes: run go generate")
	}
}
