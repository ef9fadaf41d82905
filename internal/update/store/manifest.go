package store

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/mobileops/mobileops/pkg/filehash"
	"github.com/zeebo/blake3"
)

// Kind says what an entry of a tree is.
type Kind byte

// The kinds, as they stand in a manifest.
const (
	Dir    Kind = 'd'
	File   Kind = 'f' // of a package: a link to a blob
	Local  Kind = 'u' // of no package: nobody vouches for it
	Config Kind = 'c' // a copy of its own, merged with what packages bring
	Link   Kind = 'l'
	Data   Kind = 'D' // a link into data/
)

// Entry is one name in a tree.
type Entry struct {
	Path     string // relative, slash-separated; bytes
	Kind     Kind
	Mode     uint32 // permissions with set-id bits, of Dir, File, Local, Config
	UID, GID uint32
	Size     int64        // bytes, of files
	Sum      filehash.Sum // content as it was put into the tree; zero: not known
	Base     *Delivered   // of Config, and of a Link that is configuration; nil: it is of no package
	Target   string       // of Link and Data; bytes
}

// Delivered is what a package has of a file of configuration.
type Delivered struct {
	Sum  filehash.Sum // of the content; of the target of a link
	Mode uint32       // type and permissions
}

// file says whether it is a regular file.
func (e *Entry) file() bool { return e.Kind == File || e.Kind == Local || e.Kind == Config }

// blobKey says which blob has the content of a file: hard links share mode and
// owner, so these are a part of it.
type blobKey struct {
	sum            filehash.Sum
	mode, uid, gid uint32
}

func (e *Entry) key() blobKey { return blobKey{e.Sum, e.Mode, e.UID, e.GID} }

// name is the path of the blob beneath blobs/.
func (k blobKey) name() string {
	sum := k.sum.String()
	return fmt.Sprintf("%s/%s.%o.%d.%d", sum[:2], sum[2:], k.mode, k.uid, k.gid)
}

const (
	manifestSchema  = "mobileops.update.manifest/v1"
	maxManifest     = 1 << 30 // bytes
	maxManifestLine = 64 << 10
)

// writeManifest writes entries, which come in the order of their paths.
// docs/formats/update-store.md describes the format.
func writeManifest(w io.Writer, entries iter.Seq[*Entry]) error {
	h := blake3.New()
	out := bufio.NewWriterSize(io.MultiWriter(w, h), 256<<10)
	out.WriteString(manifestSchema + "\n")
	var line []byte
	n := 0
	for e := range entries {
		line = appendEntry(line[:0], e)
		out.Write(line) // the error is that of Flush
		n++
	}
	if err := out.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "end %d %x\n", n, h.Sum(nil))
	return err
}

// appendEntry writes the line of an entry. There is no other way to write it.
func appendEntry(line []byte, e *Entry) []byte {
	line = append(line, byte(e.Kind), ' ')
	line = strconv.AppendUint(line, uint64(e.Mode), 8)
	line = append(line, ' ')
	line = strconv.AppendUint(line, uint64(e.UID), 10)
	line = append(line, ' ')
	line = strconv.AppendUint(line, uint64(e.GID), 10)
	line = append(line, ' ')
	line = strconv.AppendInt(line, e.Size, 10)
	line = append(line, ' ')
	line = appendSum(line, e.Sum)
	line = append(line, ' ')
	if e.Base == nil {
		line = append(line, '-')
	} else {
		line = appendSum(line, e.Base.Sum)
		line = append(line, '.')
		line = strconv.AppendUint(line, uint64(e.Base.Mode), 8)
	}
	line = append(line, ' ')
	line = appendEscaped(line, e.Path)
	if e.Kind == Link || e.Kind == Data {
		line = append(line, ' ')
		line = appendEscaped(line, e.Target)
	}
	return append(line, '\n')
}

func appendSum(line []byte, s filehash.Sum) []byte {
	if s == (filehash.Sum{}) {
		return append(line, '-')
	}
	return hex.AppendEncode(line, s[:])
}

// appendEscaped writes bytes that would end a field as %XX.
func appendEscaped(line []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c == '%' || c == 0x7f {
			line = append(line, '%', "0123456789ABCDEF"[c>>4], "0123456789ABCDEF"[c&15])
		} else {
			line = append(line, c)
		}
	}
	return line
}

// ManifestError says where a manifest cannot be read. It is ErrDamaged.
type ManifestError struct {
	Line int // from 1
	What string
}

func (e *ManifestError) Error() string {
	return fmt.Sprintf("the manifest is damaged at line %d: %s", e.Line, e.What)
}

func (e *ManifestError) Unwrap() error { return ErrDamaged }

// readManifest calls fn with each entry in order of path, after it has proved
// nothing but the line itself: the checksum at the end is compared when all was
// read, so fn is not to act before readManifest returned.
func readManifest(r io.Reader, fn func(*Entry) error) error {
	h := blake3.New()
	in := bufio.NewReaderSize(io.LimitReader(r, maxManifest), maxManifestLine)
	last := ""
	var written []byte
	for n := 1; ; n++ {
		bad := func(format string, args ...any) error { return &ManifestError{n, fmt.Sprintf(format, args...)} }
		line, err := in.ReadSlice('\n')
		if errors.Is(err, io.EOF) {
			return bad("it ends too early")
		} else if errors.Is(err, bufio.ErrBufferFull) {
			return bad("it is too long")
		} else if err != nil {
			return err
		}
		if n == 1 {
			if string(line) != manifestSchema+"\n" {
				return bad("it does not begin with %s", manifestSchema)
			}
			h.Write(line)
			continue
		}
		if rest, ok := bytes.CutPrefix(line, []byte("end ")); ok {
			if want := fmt.Sprintf("%d %x\n", n-2, h.Sum(nil)); string(rest) != want {
				return bad("its checksum is wrong")
			}
			if _, err := in.ReadByte(); !errors.Is(err, io.EOF) {
				return bad("something follows its end")
			}
			return nil
		}
		h.Write(line)
		e, what := parseEntry(string(line[:len(line)-1]))
		if what != "" {
			return bad("%s", what)
		}
		if written = appendEntry(written[:0], e); !bytes.Equal(written, line) {
			return bad("it is not written as it has to be")
		}
		if e.Path <= last {
			return bad("%q is out of order", e.Path)
		}
		last = e.Path
		if err := fn(e); err != nil {
			return err
		}
	}
}

// parseEntry reads a line, and says what is wrong with it.
func parseEntry(line string) (e *Entry, what string) {
	f := strings.Split(line, " ")
	e = new(Entry)
	if len(f[0]) != 1 || !strings.Contains("dfuclD", f[0]) {
		return nil, "it is of no known kind"
	}
	e.Kind = Kind(f[0][0])
	if want := 8; len(f) != want && (len(f) != want+1 || e.Kind != Link && e.Kind != Data) {
		return nil, "it has too few or too many fields"
	}
	mode, err1 := strconv.ParseUint(f[1], 8, 13)
	uid, err2 := strconv.ParseUint(f[2], 10, 32)
	gid, err3 := strconv.ParseUint(f[3], 10, 32)
	size, err4 := strconv.ParseUint(f[4], 10, 63)
	base, baseMode, hasBase := strings.Cut(f[6], ".")
	err5 := parseSum(f[5], &e.Sum)
	var err6, err7 error
	if base != "-" || hasBase {
		if !hasBase {
			return nil, "its base has no mode"
		}
		m, err := strconv.ParseUint(baseMode, 8, 16)
		e.Base = &Delivered{Mode: uint32(m)}
		if err6, err7 = err, parseSum(base, &e.Base.Sum); e.Base.Sum == (filehash.Sum{}) {
			return nil, "its base has no digest"
		}
	}
	if err := errors.Join(err1, err2, err3, err4, err5, err6, err7); err != nil {
		return nil, "a number in it cannot be read"
	}
	e.Mode, e.UID, e.GID, e.Size = uint32(mode), uint32(uid), uint32(gid), int64(size)
	var ok bool
	if e.Path, ok = unescape(f[7]); !ok || !validPath(e.Path) {
		return nil, "its path cannot be right"
	}
	if len(f) == 9 {
		if e.Target, ok = unescape(f[8]); !ok || e.Target == "" || strings.ContainsRune(e.Target, 0) {
			return nil, "its target cannot be right"
		}
	} else if e.Kind == Link || e.Kind == Data {
		return nil, "it has no target"
	}
	return e, ""
}

func parseSum(s string, sum *filehash.Sum) error {
	if s == "-" {
		return nil
	}
	if len(s) != 2*len(sum) {
		return errors.New("not a digest")
	}
	_, err := hex.Decode(sum[:], []byte(s))
	return err
}

func unescape(s string) (string, bool) {
	if !strings.Contains(s, "%") {
		return s, true
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b.WriteByte(s[i])
			continue
		}
		if i+2 >= len(s) {
			return "", false
		}
		c, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
		if err != nil {
			return "", false
		}
		b.WriteByte(byte(c))
		i += 2
	}
	return b.String(), true
}

// validPath says whether p is a clean path beneath a tree.
func validPath(p string) bool {
	return p != "" && p != "." && p != ".." && !strings.HasPrefix(p, "/") && !strings.HasPrefix(p, "../") &&
		path.Clean(p) == p && !strings.ContainsRune(p, 0)
}

// Entries calls fn with each entry of the manifest of generation n, in the order
// of their paths. That the manifest is whole has been proved when Entries returns
// nil: fn is not to act before.
func (s *Store) Entries(n int, fn func(*Entry) error) error {
	f, err := os.Open(s.generation(n) + "/" + nameManifest)
	if err != nil {
		if os.IsNotExist(err) {
			return s.damaged(n, "it has no manifest")
		}
		return err
	}
	defer f.Close()
	if err := readManifest(f, fn); err != nil {
		var bad *ManifestError
		if !errors.As(err, &bad) {
			return fmt.Errorf("generation %d: %w", n, err)
		}
		return s.damaged(n, bad.Error())
	}
	return nil
}

// load reads the manifest of generation n into a view.
func (s *Store) load(n int, into *view) error {
	return s.Entries(n, func(e *Entry) error { into.put(e); return nil })
}
