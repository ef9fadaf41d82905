package integrity

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/mobileops/mobileops/internal/integrity/baseline"
	"github.com/mobileops/mobileops/internal/integrity/packages"
	"github.com/mobileops/mobileops/pkg/filehash"
	"golang.org/x/sys/unix"
)

// Bounds on what is looked at of each package that claims to be another version.
const (
	rewrittenFiles = 8
	maxDpkgList    = 16 << 20
	namedForged    = 20 // packages that are named
)

// claimed finds the packages of dpkg that claim another version than before,
// and of which a file is the very same inode as in the baseline, not written
// since the tree was walked for it. What was written later can be of an update
// that was accepted in part, as the table of packages then has the old version
// on. dpkg writes every file of a package anew when it unpacks a version,
// configuration files alone excepted. So such a version is nothing but a line
// that somebody changed in the database, and vouches for nothing.
//
// It is no proof of the contrary: who writes all files anew is not found out.
func (c *classifier) claimed(ctx context.Context, cur *baseline.Cursor) error {
	c.forged = map[packages.Package]bool{}
	var problems []string
	for name, p := range c.versions {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		was, known := c.before[name]
		if p.Manager != packages.Dpkg || name != p.Name+":"+p.Arch || !known || was == p {
			continue
		}
		path, err := c.untouched(cur, p)
		if err != nil {
			return err
		}
		if path == nil {
			continue
		}
		c.forged[p] = true
		problems = append(problems, fmt.Sprintf("%s was version %s before, and %s was not written anew since, as an update does: it does not count as updated", p, was.Version, path))
	}
	slices.Sort(problems)
	if more := len(problems) - namedForged; more > 0 {
		problems = append(problems[:namedForged], fmt.Sprintf("so it is with %d more packages", more))
	}
	c.report.Ownership.Problems = append(c.report.Ownership.Problems, problems...)
	return nil
}

// untouched returns a file of a package that is as it was in the baseline, by
// inode and time of its last change, nil when there is none among the first
// that can be told.
func (c *classifier) untouched(cur *baseline.Cursor, p packages.Package) ([]byte, error) {
	var list []byte
	for _, name := range []string{p.Name + ":" + p.Arch, p.Name} {
		f, err := c.single.open([]byte("/var/lib/dpkg/info/" + name + ".list"))
		if err != nil {
			continue
		}
		list, err = io.ReadAll(io.LimitReader(f, maxDpkgList))
		f.Close()
		if err != nil {
			return nil, nil // the reader of the database tells about it
		}
		break
	}
	for n := 0; len(list) > 0 && n < rewrittenFiles; {
		var path []byte
		path, list, _ = bytes.Cut(list, []byte("\n"))
		if len(path) < 2 || path[0] != '/' || within(path, []byte("/etc")) {
			continue // configuration stays as it is
		}
		// Of a file that is diverted or shared the first owner is another one.
		if then, owned := c.then.Lookup(path); !owned || then.Name != p.Name || then.Arch != p.Arch {
			continue
		}
		for _, at := range [][]byte{path, append([]byte("/usr"), path...)} {
			dir, name := splitPath(at)
			rec, _, err := cur.Find(dir, name)
			if err != nil {
				return nil, err
			}
			if rec == nil || rec.Info.Type() != unix.S_IFREG {
				continue
			}
			n++
			if rec.Info.Ctime.Sec >= c.report.Baseline.Started.Unix() {
				continue
			}
			if st, err := c.single.stat(at); err == nil && st.Ino == rec.Info.Ino && rec.Info.Ctime == (filehash.Time{Sec: int64(st.Ctim.Sec), Nsec: uint32(st.Ctim.Nsec)}) {
				return at, nil
			}
		}
	}
	return nil, nil
}
