package packed

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"os/exec"
	"strings"
	"testing"
)

// compress returns what a tool makes of some bytes.
func compress(t testing.TB, b []byte, command string) []byte {
	t.Helper()
	args := strings.Fields(command)
	if _, err := exec.LookPath(args[0]); err != nil {
		t.Skipf("%s is not installed: nothing is known about files that it makes", args[0])
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin = bytes.NewReader(b)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	return out
}

// numbered is some text that shrinks as logs do.
func numbered(from, to int) string {
	var b strings.Builder
	for i := from; i < to; i++ {
		fmt.Fprintf(&b, "2026-11-22T06:%02d:%02d.%03dZ app[77]: line number %d of the test\n", i/60000%60, i/1000%60, i%1000, i)
	}
	return b.String()
}

func unxz(b []byte) ([]byte, error) {
	return io.ReadAll(newXZ(bufio.NewReader(bytes.NewReader(b)), 128<<20))
}

func TestXZ(t *testing.T) {
	text := []byte(numbered(0, 20_000))
	for _, options := range []string{"-0", "-6", "-T2 --block-size=65536", "--check=none", "--check=crc32", "--check=sha256", "-9e"} {
		packed := compress(t, text, "xz -c "+options)
		// Two streams with padding between them are one file.
		twice := bytes.Join([][]byte{packed, packed}, make([]byte, 8))
		if got, err := unxz(twice); err != nil || !bytes.Equal(got, append(text[:len(text):len(text)], text...)) {
			t.Errorf("xz %s: %d bytes, %v", options, len(got), err)
		}
		for _, cut := range []int{1, 11, 12, 20, 30, len(packed) / 2, len(packed) - 13, len(packed) - 1} {
			if _, err := unxz(packed[:cut]); err != io.ErrUnexpectedEOF {
				t.Errorf("xz %s, the first %d of %d bytes: %v", options, cut, len(packed), err)
			}
		}
		if options != "--check=none" {
			damaged := bytes.Clone(packed)
			damaged[len(damaged)/2] ^= 1
			if got, err := unxz(damaged); err == nil {
				t.Errorf("xz %s: damage is not seen, %d bytes", options, len(got))
			}
		}
	}
}

// A later block that asks for all memory is refused like a first one.
func TestXZMemory(t *testing.T) {
	packed := compress(t, []byte(numbered(0, 10)), "xz -c -0")
	greedy := bytes.Clone(packed)
	header := greedy[12 : 12+4*(int(greedy[12])+1)]
	i := bytes.Index(header, []byte{0x21, 1})
	header[i+2] = 39 // 3 GiB
	binary.LittleEndian.PutUint32(header[len(header)-4:], crc32.ChecksumIEEE(header[:len(header)-4]))
	for _, b := range [][]byte{greedy, append(bytes.Clone(packed), greedy...)} {
		if _, err := unxz(b); err == nil || !strings.Contains(err.Error(), "dictionary is larger") {
			t.Errorf("%v", err)
		}
	}
}
