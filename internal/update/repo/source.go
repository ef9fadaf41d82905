package repo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// source is where the files of a repository are. Names are slash-separated and
// relative; those of packages were checked by validPath.
type source interface {
	// fetch returns a whole file of at most limit bytes.
	fetch(ctx context.Context, name string, limit int64) ([]byte, error)
	// open returns the content of a file from offset on. A source that cannot
	// begin in the middle returns all of it and 0 as where it begins. Reading
	// fails when ctx is done.
	open(ctx context.Context, name string, offset int64) (body io.ReadCloser, from int64, err error)
	// String is the source without secrets.
	String() string
}

// openSource makes the source that a configuration names: an http or https
// URL, a file URL, or a directory.
func openSource(o Options) (source, error) {
	switch scheme, rest, ok := strings.Cut(o.Source, "://"); {
	case o.Source == "":
		return nil, errors.New("a repository needs a source: a URL or a directory")
	case !ok:
		return newDirSource(o.Source)
	case scheme == "file":
		u, err := url.Parse(o.Source)
		if err != nil || u.Host != "" && u.Host != "localhost" || !filepath.IsAbs(u.Path) {
			return nil, fmt.Errorf("%q is not the URL of a directory, such as file:///media/stick/repository", o.Source)
		}
		return newDirSource(u.Path)
	case scheme == "http" || scheme == "https":
		u, err := url.Parse(o.Source)
		if err != nil || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
			// The error of Parse would show a password that stands in the URL.
			return nil, errors.New("the repository's URL is not one of a directory on a web server, such as https://updates.example.org/mobileops")
		}
		return newHTTPSource(u, o.HTTP, o.Limits), nil
	default:
		return nil, fmt.Errorf("a repository cannot be had over %q of %q: http, https, file or a directory", scheme, rest)
	}
}

// dirSource is a directory, such as a mounted USB stick. Nothing outside of it
// is opened, whatever links are in it.
type dirSource struct{ dir string }

func newDirSource(dir string) (*dirSource, error) {
	dir, err := filepath.Abs(dir)
	return &dirSource{dir}, err
}

func (s *dirSource) String() string { return s.dir }

func (s *dirSource) open(ctx context.Context, name string, offset int64) (io.ReadCloser, int64, error) {
	f, err := s.file(name)
	if err != nil {
		return nil, 0, err
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		f.Close()
		return nil, 0, &Error{Code: CodeUnreachable, Err: err}
	}
	return contextReader{ctx, f}, offset, nil
}

func (s *dirSource) fetch(ctx context.Context, name string, limit int64) ([]byte, error) {
	f, err := s.file(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readLimited(contextReader{ctx, f}, name, limit)
}

func (s *dirSource) file(name string) (*os.File, error) {
	root, err := os.OpenRoot(s.dir)
	if err != nil {
		return nil, &Error{Code: CodeUnreachable, Err: err, Hint: "is it mounted?"}
	}
	defer root.Close()
	f, err := root.OpenFile(filepath.FromSlash(name), os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, refuse(CodeMissing, "", "%s has no %s", s.dir, name)
	}
	if err != nil {
		return nil, &Error{Code: CodeUnreachable, Err: err}
	}
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		f.Close()
		return nil, refuse(CodeMalformed, "", "%s in %s is not a regular file", name, s.dir)
	}
	return f, nil
}

// contextReader fails once its context is done.
type contextReader struct {
	ctx context.Context
	io.ReadCloser
}

func (r contextReader) Read(b []byte) (int, error) {
	if err := context.Cause(r.ctx); err != nil {
		return 0, err
	}
	return r.ReadCloser.Read(b)
}

// readLimited reads all of a file, unless there is more of it than limit.
func readLimited(r io.Reader, name string, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, readFailure(name, err)
	}
	if int64(len(data)) > limit {
		return nil, refuse(CodeTooLarge, "", "%s is larger than %d bytes", name, limit)
	}
	return data, nil
}

// readFailure gives a code to an error of reading that has none.
func readFailure(name string, err error) error {
	if CodeOf(err) != "" || errors.Is(err, context.Canceled) {
		return err
	}
	return &Error{Code: CodeUnreachable, Msg: "read " + name, Err: err}
}
