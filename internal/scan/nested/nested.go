// Package nested looks at archives within archives before somebody unpacks them:
// a JAR has JARs, a WAR has them in WEB-INF/lib, and what a stranger made may have
// them without end. Only the table of contents is read, and of archives within as
// much as their own needs; the format is that of PKWARE's APPNOTE.
package nested

import (
	"archive/zip"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
)

// The limits unless it is said otherwise.
const (
	DefaultDepth    = 8
	DefaultArchives = 20_000
	DefaultBytes    = 4 << 30 // of archives within, unpacked
	maxMember       = 16 << 20
)

// ErrTooLarge says that an archive has more than the limits allow.
var ErrTooLarge = errors.New("more than the limits allow")

// Limits are how much an archive may have within. Each is its default when it is 0.
type Limits struct {
	Depth    int   // of archives in archives
	Archives int   // in all
	Bytes    int64 // unpacked
	// Temp is a directory for archives within that are packed; "" is that of the system.
	Temp string
}

// Check looks at the archive of size bytes that r has. It returns an error that
// is ErrTooLarge and names the entry when there is more within than limits
// allows, and an error that is zip.ErrFormat when r has no archive.
func Check(r io.ReaderAt, size int64, limits Limits) error {
	c := &check{limits: limits}
	if c.limits.Depth == 0 {
		c.limits.Depth = DefaultDepth
	}
	if c.limits.Archives == 0 {
		c.limits.Archives = DefaultArchives
	}
	if c.limits.Bytes == 0 {
		c.limits.Bytes = DefaultBytes
	}
	return c.archive(r, size, 0)
}

type check struct {
	limits   Limits
	archives int
	bytes    int64
}

func (c *check) archive(r io.ReaderAt, size int64, depth int) error {
	z, err := zip.NewReader(r, size)
	if err != nil && !errors.Is(err, zip.ErrInsecurePath) {
		return err
	}
	for _, f := range z.File {
		switch {
		case isArchive(f.Name):
			if err := c.within(f, r, depth+1); err != nil {
				return fmt.Errorf("entry %q: %w", f.Name, err)
			}
		case isRead(f.Name) && f.UncompressedSize64 > maxMember:
			return fmt.Errorf("entry %q: %w: it has %d bytes", f.Name, ErrTooLarge, f.UncompressedSize64)
		}
	}
	return nil
}

func (c *check) within(f *zip.File, r io.ReaderAt, depth int) error {
	if depth > c.limits.Depth {
		return fmt.Errorf("%w: archives in archives, %d deep", ErrTooLarge, depth)
	}
	if c.archives++; c.archives > c.limits.Archives {
		return fmt.Errorf("%w: more than %d archives", ErrTooLarge, c.limits.Archives)
	}
	if f.UncompressedSize64 > uint64(c.limits.Bytes-c.bytes) {
		return fmt.Errorf("%w: archives within have more than %d bytes", ErrTooLarge, c.limits.Bytes)
	}
	size := int64(f.UncompressedSize64)
	c.bytes += size
	if f.Method == zip.Store {
		if offset, err := f.DataOffset(); err == nil {
			return c.inner(io.NewSectionReader(r, offset, size), size, depth)
		}
	}
	content, err := f.Open()
	if err != nil {
		return nil // whoever reads the archive cannot open it either
	}
	defer content.Close()
	temp, err := os.CreateTemp(c.limits.Temp, "nested-")
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name())
	defer temp.Close()
	// archive/zip never gives out more than the entry says that it has.
	n, err := io.Copy(temp, content)
	if err != nil {
		return nil
	}
	return c.inner(temp, n, depth)
}

// inner looks at an archive within; one that is broken is not looked at by anybody else either.
func (c *check) inner(r io.ReaderAt, size int64, depth int) error {
	if err := c.archive(r, size, depth); errors.Is(err, ErrTooLarge) {
		return err
	}
	return nil
}

// IsArchive tells by its name whether a file is one of Java's archives.
func IsArchive(name string) bool { return isArchive(name) }

func isArchive(name string) bool {
	switch strings.ToLower(path.Ext(name)) {
	case ".jar", ".war", ".ear", ".par":
		return true
	}
	return false
}

// isRead tells whether a member is one that is read as a whole to learn what an
// archive is.
func isRead(name string) bool {
	base := strings.ToLower(path.Base(name))
	switch base {
	case "pom.xml", "pom.properties", "manifest.mf":
		return true
	}
	return strings.Contains(base, "license") || strings.Contains(base, "licence") || strings.Contains(base, "copying") || strings.Contains(base, "notice")
}
