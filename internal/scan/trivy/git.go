//go:build goexperiment.jsonv2

package trivy

import (
	"bufio"
	"context"
	"errors"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/format/index"
	"github.com/go-git/go-git/v5/plumbing/object"

	"github.com/aquasecurity/trivy/pkg/fanal/artifact"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/scan/protocol"
)

// gitPatience is how long git's files may take to be read. Whoever made the tree may
// have put pipes among them, which go-git waits for.
const gitPatience = time.Minute

// commit says what a git work tree is at; nil for a directory that is none, which
// a Repository must not be.
func (j *job) commit(ctx context.Context, dir string) (*protocol.Commit, artifact.RepoMetadata, error) {
	type answer struct {
		commit   *protocol.Commit
		metadata artifact.RepoMetadata
		err      error
	}
	got := make(chan answer, 1)
	go func() {
		var a answer
		defer func() {
			if v := recover(); v != nil {
				a = answer{err: failure.Errorf(failure.Failed, "%s: git: %s", dir, panicText(v))}
			}
			got <- a
		}()
		a.commit, a.metadata, a.err = j.readCommit(dir)
	}()
	select {
	case a := <-got:
		return a.commit, a.metadata, a.err
	case <-ctx.Done():
		return nil, artifact.RepoMetadata{}, context.Cause(ctx)
	case <-time.After(gitPatience):
	}
	if j.req.Kind == protocol.Repository {
		return nil, artifact.RepoMetadata{}, failure.Hint(failure.Errorf(failure.Failed, "%s: the files of git could not be read within %s", dir, gitPatience), "scan it as a directory: mobileops scan fs "+dir)
	}
	j.found.note("the files of git could not be read within " + gitPatience.String() + ", so nothing is told of the commit")
	return nil, artifact.RepoMetadata{}, nil
}

// readCommit reads what commit tells.
//
// Trivy asks go-git for the status of the tree, which reads every file of it. Here
// only files whose size or time differ from the index are read.
func (j *job) readCommit(dir string) (_ *protocol.Commit, metadata artifact.RepoMetadata, err error) {
	must := j.req.Kind == protocol.Repository
	repo, err := git.PlainOpenWithOptions(dir, &git.PlainOpenOptions{EnableDotGitCommonDir: true})
	if err != nil {
		if must {
			return nil, metadata, failure.Hint(failure.Errorf(failure.Usage, "%s is no git work tree: %w", dir, err), "scan it as a directory: mobileops scan fs "+dir)
		}
		return nil, metadata, nil
	}
	c := new(protocol.Commit)
	for _, name := range []string{"upstream", "origin"} {
		if r, err := repo.Remote(name); err == nil && len(r.Config().URLs) > 0 {
			c.Remote = withoutCredentials(r.Config().URLs[0])
			break
		}
	}
	head, err := repo.Head()
	switch {
	case errors.Is(err, plumbing.ErrReferenceNotFound):
		// A repository without a commit.
	case err != nil:
		j.found.add(protocol.Malformed, ".git/HEAD", err.Error())
	default:
		c.Hash = head.Hash().String()
		if head.Name().IsBranch() {
			c.Branch = head.Name().Short()
		}
	}
	if c.Dirty, err = dirty(repo, dir, c.Hash); err != nil {
		j.found.note("whether files were changed since the commit could not be told: " + err.Error())
	}
	return c, artifact.RepoMetadata{RepoURL: c.Remote, Branch: c.Branch, Commit: c.Hash}, nil
}

// withoutCredentials takes user and password out of the URL of a remote.
func withoutCredentials(s string) string {
	u, err := url.Parse(s)
	if err != nil || u.Scheme == "" {
		if _, rest, ok := strings.Cut(s, "@"); ok && strings.Contains(s, "://") {
			return rest
		}
		return s
	}
	if u.User != nil {
		u.User = nil
	}
	return u.String()
}

// dirty tells whether a tracked file is not as the commit has it. Files that are
// not tracked don't count, as for git describe --dirty.
func dirty(repo *git.Repository, dir, head string) (bool, error) {
	idx, err := repo.Storer.Index()
	if err != nil {
		return false, err
	}
	committed := map[string]plumbing.Hash{}
	if head != "" {
		commit, err := repo.CommitObject(plumbing.NewHash(head))
		if err != nil {
			return false, err
		}
		tree, err := commit.Tree()
		if err != nil {
			return false, err
		}
		w := object.NewTreeWalker(tree, true, nil)
		defer w.Close()
		for {
			name, e, err := w.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return false, err
			}
			if e.Mode != filemode.Dir {
				committed[name] = e.Hash
			}
		}
	}
	if len(idx.Entries) != len(committed) {
		return true, nil
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return false, err
	}
	defer root.Close()
	for _, e := range idx.Entries {
		if committed[e.Name] != e.Hash {
			return true, nil
		}
		changed, err := differs(root, e)
		if changed || err != nil {
			return changed, err
		}
	}
	return false, nil
}

func differs(root *os.Root, e *index.Entry) (bool, error) {
	if e.Mode == filemode.Submodule || e.SkipWorktree {
		return false, nil
	}
	info, err := root.Lstat(filepath.FromSlash(e.Name))
	if err != nil {
		return errors.Is(err, fs.ErrNotExist), ignoreMissing(err)
	}
	if e.Mode != filemode.Symlink && info.Mode().IsRegular() != (e.Mode == filemode.Regular || e.Mode == filemode.Executable || e.Mode == filemode.Deprecated) {
		return true, nil
	}
	if info.ModTime().Equal(e.ModifiedAt) && uint32(info.Size()) == e.Size {
		return false, nil
	}
	h := plumbing.NewHasher(plumbing.BlobObject, info.Size())
	if e.Mode == filemode.Symlink {
		target, err := root.Readlink(filepath.FromSlash(e.Name))
		if err != nil {
			return true, nil
		}
		_, _ = h.Write([]byte(target))
		return h.Sum() != e.Hash, nil
	}
	f, err := root.Open(filepath.FromSlash(e.Name))
	if err != nil {
		return false, err
	}
	defer f.Close()
	if _, err := bufio.NewReader(f).WriteTo(h); err != nil {
		return false, err
	}
	return h.Sum() != e.Hash, nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
