package pack

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/mobileops/mobileops/internal/archive"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/plugin/manifest"
	"github.com/mobileops/mobileops/pkg/filehash"
)

// maxReported are the refusals that one look at a directory tells.
const maxReported = 20

// VerifyDir proves that an installed directory is what its manifest says, and
// nothing else: every file with its digest, size and mode, no more and no less,
// no links, and everything owned by root, or by who runs this, and writable by
// nobody else. The error joins the first refusals, each an *Error.
//
// m must have been proved: read it by Open from the same directory, and Verify
// it. The directories above are for the caller to look at.
func VerifyDir(ctx context.Context, dir string, m *manifest.Manifest) error {
	return verify(ctx, dir, m, "")
}

// VerifyFile is VerifyDir for one file and the directories that it is in, such
// as the program before each start.
func VerifyFile(ctx context.Context, dir string, m *manifest.Manifest, name string) error {
	if _, listed := m.Files[name]; !listed {
		return refuse(CodeExtraFile, name, hintInstalled, "%s does not list it", manifest.FileName)
	}
	return verify(ctx, dir, m, name)
}

// verify looks at a directory, or at one file in it when only is not "".
func verify(ctx context.Context, dir string, m *manifest.Manifest, only string) error {
	info, err := os.Lstat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return refuse(CodeMissingFile, "", hintInstalled, "%s is not there", dir)
	}
	if err != nil {
		return access(err)
	}
	if !info.IsDir() {
		return refuse(archive.CodeFileOverDir, "", hintInstalled, "%s is a link or a file in place of a directory", dir)
	}
	v := &verification{manifest: m, wanted: newPaths(m, only), only: only, seen: make(map[string]bool, len(m.Files)), uid: uint32(os.Geteuid())}
	err = filehash.Walk(ctx, dir, filehash.Options{Select: v.wanted}, v.batch)
	if err != nil && !errors.Is(err, errEnough) {
		return access(err)
	}
	v.missing()
	return errors.Join(v.refused...)
}

// errEnough ends a walk that has told enough.
var errEnough = errors.New("enough is wrong")

type verification struct {
	manifest *manifest.Manifest
	wanted   *paths
	only     string
	uid      uint32 // who may own files beside root
	seen     map[string]bool
	refused  []error
}

func (v *verification) refuse(code archive.Code, name, format string, args ...any) {
	v.refused = append(v.refused, refuse(code, name, hintInstalled, format, args...))
}

// batch looks at entries of one directory.
func (v *verification) batch(b *filehash.Batch) error {
	dir := strings.TrimPrefix(string(b.Dir), "/")
	if b.Err != nil {
		return failure.Errorf(failure.KindOf(access(b.Err)), "look at the directory %q: %w", dir, b.Err)
	}
	for i := range b.Entries {
		e := &b.Entries[i]
		name := string(e.Name)
		switch {
		case len(b.Dir) == 0:
			name = ""
		case dir != "":
			name = dir + "/" + name
		}
		if err := v.entry(name, e); err != nil {
			return err
		}
		if len(v.refused) >= maxReported {
			return errEnough
		}
	}
	return nil
}

// entry looks at one thing.
func (v *verification) entry(name string, e *filehash.Entry) error {
	node := v.wanted // of the top
	if name != "" {
		node = v.wanted.find(name)
	}
	if node == nil {
		v.refuse(CodeExtraFile, name, "%s does not list it", manifest.FileName)
		return nil
	}
	v.seen[name] = true
	kind := e.Info.Type()
	switch {
	case e.Err != nil && (kind == unix.S_IFREG || kind == 0):
		return failure.Errorf(failure.KindOf(access(e.Err)), "look at %q: %w", name, e.Err)
	case kind == unix.S_IFLNK:
		v.refuse(archive.CodeType, name, "a symbolic link, to %q", archive.Abridge(string(e.Target)))
		return nil
	case node.isDir() && kind != unix.S_IFDIR:
		v.refuse(archive.CodeFileOverDir, name, "something else in place of a directory")
		return nil
	case !node.isDir() && kind == unix.S_IFDIR:
		v.refuse(archive.CodeDirOverFile, name, "a directory in place of a file")
		return nil
	case !node.isDir() && kind != unix.S_IFREG:
		v.refuse(archive.CodeDevice, name, "a device, pipe or socket in place of a file")
		return nil
	case e.Mountpoint:
		v.refuse(CodeExtraFile, name, "another file system is mounted there")
		return nil
	}
	v.rights(name, node, e)
	if f, listed := v.manifest.Files[name]; listed {
		v.content(name, f, e)
	}
	return nil
}

// rights looks at owner and mode.
func (v *verification) rights(name string, node *paths, e *filehash.Entry) {
	if e.Info.UID != 0 && e.Info.UID != v.uid {
		v.refuse(CodeOwner, name, "it belongs to user %d, who can change it", e.Info.UID)
	}
	mode := e.Info.Mode & 0o7777
	want := uint32(0o644)
	if f, listed := v.manifest.Files[name]; listed {
		want = modeOf(f)
	}
	switch {
	case mode&0o022 != 0:
		v.refuse(CodeWritable, name, "others may write it (mode %04o)", mode)
	case mode&0o6000 != 0:
		v.refuse(archive.CodeSetID, name, "mode %04o: nothing of a plugin has such bits", mode)
	case !node.isDir() && mode != want:
		v.refuse(CodeMode, name, "mode %04o; it must be %04o", mode, want)
	}
}

// content holds a file against its digest.
func (v *verification) content(name string, f manifest.File, e *filehash.Entry) {
	switch {
	case e.Content == filehash.Unstable:
		v.refuse(CodeDigest, name, "it changes while it is read")
	case e.Content != filehash.Hashed:
		v.refuse(CodeDigest, name, "its content is not known")
	case e.Info.Size != f.Size:
		v.refuse(CodeDigest, name, "it has %d bytes, and %d were signed", e.Info.Size, f.Size)
	case e.Sum.String() != f.Digest:
		v.refuse(CodeDigest, name, "it is not the file that was signed")
	}
}

// missing refuses what was not there.
func (v *verification) missing() {
	wanted := append([]string{manifest.FileName, manifest.SignatureName}, names(v.manifest)...)
	if v.only != "" {
		wanted = []string{v.only}
	}
	for _, name := range wanted {
		if !v.seen[name] && len(v.refused) < maxReported {
			v.refuse(CodeMissingFile, name, "it is not there")
		}
	}
}
