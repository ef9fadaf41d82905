package manifest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"

	"github.com/mobileops/mobileops/internal/document"
)

// Limits of the files of a package. MaxBytes bounds their number before
// MaxFiles does, unless names are short.
const (
	MaxFiles     = 4096
	MaxFileBytes = 1 << 30 // one
	MaxAllBytes  = 4 << 30 // all together
	maxFileName  = 255     // one part of a name
	maxFilePath  = 512
	maxFileDepth = 16
)

// checkFileName says what is wrong with the name of a file of a package.
func checkFileName(name string) error {
	if err := checkText(name, false); err != nil {
		return fmt.Errorf("has %w", err)
	}
	parts := strings.Split(name, "/")
	switch {
	case name == "":
		return errors.New("is empty")
	case len(name) > maxFilePath:
		return fmt.Errorf("has %d bytes; %d are allowed", len(name), maxFilePath)
	case name[0] == '/':
		return errors.New("is absolute; write it from the root of the package")
	case strings.Contains(name, `\`):
		return errors.New("has a backslash")
	case len(parts) > maxFileDepth:
		return fmt.Errorf("is %d directories deep; %d are allowed", len(parts), maxFileDepth)
	case name == FileName || name == SignatureName:
		return errors.New("is not listed: it lists the others")
	}
	for _, p := range parts {
		switch {
		case p == "" || p == "." || p == "..":
			return fmt.Errorf("has %q as a part", p)
		case len(p) > maxFileName:
			return fmt.Errorf("has a part of %d bytes; %d are allowed", len(p), maxFileName)
		}
	}
	return nil
}

// checkFiles reports what is wrong with the list of files, in the order of
// their names.
func (m *Manifest) checkFiles(bad report) {
	if len(m.Files) == 0 {
		return // of a source tree
	}
	if len(m.Files) > MaxFiles {
		bad("files", "has %d files; %d are allowed", len(m.Files), MaxFiles)
		return
	}
	names := slices.Sorted(maps.Keys(m.Files))
	total := int64(0)
	// The names that exist on a file system which ignores case: those of files,
	// and those of directories above them.
	files, dirs := map[string]string{}, map[string]string{}
	files[fold(FileName)], files[fold(SignatureName)] = FileName, SignatureName
	for _, name := range names {
		f, where := m.Files[name], join("files", name)
		if err := checkFileName(name); err != nil {
			bad(where, "the name %s %v", quote(name), err)
			continue
		}
		folded := fold(name)
		if other, clash := files[folded]; clash {
			bad(where, "the name differs from %s by case alone", quote(other))
		}
		files[folded] = name
		for i, c := range folded {
			if c != '/' {
				continue
			}
			dir := folded[:i]
			mine := dirOf(name, strings.Count(dir, "/")+1)
			if other, there := dirs[dir]; there && other != mine {
				bad(where, "its directory %s differs from %s by case alone", quote(mine), quote(other))
			}
			dirs[dir] = mine
		}
		f.check(bad, where)
		total += max(0, min(f.Size, MaxFileBytes))
	}
	for _, name := range names {
		if dir, there := dirs[fold(name)]; there {
			bad(join("files", name), "it is a file, and %s has files in it", quote(dir+"/"))
		}
	}
	for _, reserved := range []string{FileName, SignatureName} {
		if _, there := dirs[fold(reserved)]; there {
			bad("files", "%s is a directory of the package, and the manifest has that name", quote(reserved))
		}
	}
	if total > MaxAllBytes {
		bad("files", "have %d bytes together; %d are allowed", total, int64(MaxAllBytes))
	}
	switch program, there := m.Files[m.Program()]; {
	case !there:
		bad("files", "%s is not among them: it is the program that mobileops starts", document.Printable(m.Program()))
	case !program.Executable:
		bad(join("files", m.Program()), "it is the program that mobileops starts, so it must be executable (chmod 755, then pack again)")
	case program.Size == 0:
		bad(join("files", m.Program()), "it is the program that mobileops starts, and it is empty")
	}
}

// fold makes names equal that differ by case alone, by the simple case folding
// of Unicode.
func fold(s string) string {
	return strings.Map(func(c rune) rune {
		least := c
		for f := unicode.SimpleFold(c); f != c; f = unicode.SimpleFold(f) {
			least = min(least, f)
		}
		return least
	}, s)
}

// dirOf returns the first parts of a name.
func dirOf(name string, parts int) string {
	for i, c := range name {
		if c == '/' {
			if parts--; parts == 0 {
				return name[:i]
			}
		}
	}
	return name
}

func (f *File) check(bad report, where string) {
	good := len(f.Digest) == 64
	for i := 0; good && i < len(f.Digest); i++ {
		c := f.Digest[i]
		good = c >= '0' && c <= '9' || c >= 'a' && c <= 'f'
	}
	switch {
	case f.Digest == "":
		bad(join(where, "digest"), "is missing")
	case !good:
		bad(join(where, "digest"), "%s is not 64 lower-case hexadecimal digits (BLAKE3-256)", quote(f.Digest))
	}
	if f.Size < 0 || f.Size > MaxFileBytes {
		bad(join(where, "size"), "is %d; a file has from 0 to %d bytes", f.Size, int64(MaxFileBytes))
	}
}
