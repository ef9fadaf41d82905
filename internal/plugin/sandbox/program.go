package sandbox

import (
	"bytes"
	"encoding/binary"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/mobileops/mobileops/internal/failure"
	"golang.org/x/sys/unix"
)

// needs is what the kernel and the dynamic linker touch to run a program.
type needs struct {
	program string   // it
	named   []string // what it and those name: interpreters, the dynamic linker
	read    []string // shared libraries
}

// libraries is where the dynamic linker finds them: ld.so(8).
var libraries = []string{"/etc/ld.so.cache", "/etc/ld.so.preload", "/lib", "/lib64", "/lib32", "/usr/lib", "/usr/lib64", "/usr/lib32", "/usr/local/lib"}

// searchPath is where "#!/usr/bin/env NAME" looks: PATH in a sandbox.
var searchPath = []string{"/usr/bin/", "/bin/"}

// mostInterpreters is how often a script may be the interpreter of another:
// the kernel follows four (BINPRM_MAX_RECURSION).
const mostInterpreters = 4

// inspect says what a program needs. It reads its first page.
func inspect(program string) (*needs, error) {
	n := &needs{program: program}
	for range mostInterpreters {
		head, err := readHead(program)
		if err != nil {
			return nil, err
		}
		if linker := dynamicLinker(head); linker != "" {
			n.named = append(n.named, linker)
			n.read = append(n.read, libraries...)
		}
		interpreter, argument, ok := shebang(head)
		if !ok {
			return n, nil
		}
		if interpreter == "/usr/bin/env" && argument != "" && !strings.Contains(argument, "/") {
			n.named = append(n.named, interpreter)
			n.read = append(n.read, libraries...)
			if head, err := readHead(interpreter); err == nil {
				n.named = append(n.named, dynamicLinker(head))
			}
			for _, dir := range searchPath {
				if _, err := os.Stat(dir + argument); err == nil {
					interpreter = dir + argument
					break
				}
			}
		}
		program = interpreter
		n.named = append(n.named, program)
	}
	return nil, failure.Errorf(failure.Failed, "%s: interpreters of interpreters, %d deep", program, mostInterpreters)
}

// readHead reads the first 4096 bytes of a program: ELF headers of anything
// that a linker made, and the first line of a script, which the kernel cuts at
// 256.
func readHead(program string) ([]byte, error) {
	// A FIFO would block an opening without O_NONBLOCK.
	f, err := os.OpenFile(program, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "start", Path: program, Err: fs.ErrInvalid}
	}
	head := make([]byte, 4096)
	n, err := io.ReadFull(f, head)
	if err == io.ErrUnexpectedEOF || err == io.EOF {
		err = nil
	}
	return head[:n], err
}

// shebang reads the first line of a script: execve(2).
func shebang(head []byte) (interpreter, argument string, ok bool) {
	rest, ok := bytes.CutPrefix(head, []byte("#!"))
	if !ok {
		return "", "", false
	}
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	interpreter, argument, _ = strings.Cut(strings.TrimSpace(string(line[:min(len(line), 254)])), " ")
	argument = strings.TrimSpace(argument)
	return interpreter, argument, strings.HasPrefix(interpreter, "/")
}

// dynamicLinker is the interpreter that an ELF file names (PT_INTERP in elf(5)),
// "" for a static program and for what is none.
func dynamicLinker(head []byte) string {
	const elfHeader, programHeader, ptInterp = 64, 56, 3
	if len(head) < elfHeader || string(head[:4]) != "\x7fELF" || head[4] != 2 || head[5] != 1 { // 64 bits, little endian
		return ""
	}
	offset, count := binary.LittleEndian.Uint64(head[32:]), binary.LittleEndian.Uint16(head[56:])
	for i := range uint64(count) {
		at := offset + i*programHeader
		if at < offset || at+programHeader > uint64(len(head)) {
			break
		}
		h := head[at:]
		if binary.LittleEndian.Uint32(h) != ptInterp {
			continue
		}
		from, size := binary.LittleEndian.Uint64(h[8:]), binary.LittleEndian.Uint64(h[32:])
		if size == 0 || from > uint64(len(head)) || size > uint64(len(head))-from {
			break
		}
		return strings.TrimRight(string(head[from:from+size]), "\x00")
	}
	return ""
}
