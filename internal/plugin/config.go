package plugin

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/plugin/manifest"
)

// Bounds of what administrators write, in bytes.
const (
	maxConfig = 1 << 20
	maxSecret = 64 << 10
)

// configured reads the configuration of a plugin and resolves its permissions
// with it.
func (e *Engine) configured(m *manifest.Manifest) (manifest.Values, manifest.ResolvedPermissions, error) {
	path := e.ConfigFile(m.Name)
	data, err := readOwned(path, maxConfig)
	missing := errors.Is(err, fs.ErrNotExist)
	if missing {
		data, err = nil, nil
	}
	if err != nil {
		return manifest.Values{}, manifest.ResolvedPermissions{}, err
	}
	values, err := m.Config.ValidateFile(path, data)
	if err != nil && missing {
		return values, manifest.ResolvedPermissions{}, failure.Hint(failure.Errorf(failure.NotReady, "it is not configured: there is no %s", path),
			"a file to start from: mobileops plugin config "+m.Name+" --example")
	}
	if err != nil {
		return values, manifest.ResolvedPermissions{}, failure.Hint(err, "see what it may say: mobileops plugin config "+m.Name+" --example")
	}
	permissions, err := m.Permissions.Resolve(values)
	if err == nil {
		err = e.fence(m.Name, permissions.Write, permissions.Unix)
	}
	return values, permissions, err
}

// fence refuses to let a plugin write to what decides about plugins: state, keys,
// configuration, what is installed, and the sockets at which the supervisor is asked. A place above or beneath is as good.
func (e *Engine) fence(name string, write, sockets []string) error {
	for _, path := range sockets {
		// Who connects for it is mobileops, whom its own sockets trust.
		if e.opts.RunDir != "" && (overlap(path, e.opts.RunDir) || overlap(resolved(path), resolved(e.opts.RunDir))) {
			return failure.Errorf(failure.Untrustworthy, "plugin %s may connect to %s, which is a socket of mobileops itself", name, path)
		}
	}
	for _, path := range write {
		if strings.HasPrefix(path, manifest.ConfigPrefix) {
			continue // its value is looked at when there is one
		}
		for _, ours := range []string{e.opts.State.Dir(), e.opts.Dir, e.opts.ConfigDir, e.opts.KeysDir, e.opts.RunDir} {
			if ours == "" {
				continue
			}
			if overlap(path, ours) || overlap(resolved(path), resolved(ours)) {
				return failure.Errorf(failure.Untrustworthy, "plugin %s may write to %s, and so to %s, with which it could let itself do anything (choose another place)", name, path, ours)
			}
		}
	}
	return nil
}

// overlap says whether one of two paths is the other or lies beneath it.
func overlap(a, b string) bool {
	a, b = strings.TrimSuffix(a, "/")+"/", strings.TrimSuffix(b, "/")+"/"
	return strings.HasPrefix(a, b) || strings.HasPrefix(b, a)
}

// resolved is a path without symbolic links, as far as it exists.
func resolved(path string) string {
	rest := ""
	for {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			return filepath.Join(real, rest)
		}
		if path == "/" || path == "." {
			return filepath.Join(path, rest)
		}
		path, rest = filepath.Dir(path), filepath.Join(filepath.Base(path), rest)
	}
}

// Configuration returns what a plugin is configured to, with defaults, and what
// it may do with that.
func (e *Engine) Configuration(m *manifest.Manifest) (manifest.Values, manifest.ResolvedPermissions, error) {
	return e.configured(m)
}

// readOwned reads a file that nobody but root and who runs this can change.
func readOwned(path string, most int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.Mode().IsRegular():
		return nil, failure.Errorf(failure.Failed, "%s is no file", path)
	case !ok || st.Uid != 0 && int(st.Uid) != os.Geteuid() || info.Mode().Perm()&0o022 != 0:
		return nil, failure.Errorf(failure.Untrustworthy, "%s can be changed by others than root or you (chown root and chmod go-w it)", path)
	case info.Size() > most:
		return nil, failure.Errorf(failure.Failed, "%s has %d bytes; %d are allowed", path, info.Size(), most)
	}
	return io.ReadAll(io.LimitReader(f, most))
}

// settings are the configuration as a plugin asks for it.
type settings struct {
	values  manifest.Values
	secrets map[string]string
}

// settingsOf reads the files of secrets as well. They are read once, before the
// plugin starts, so that a missing one is told to who starts it.
func settingsOf(values manifest.Values) (*settings, error) {
	s := &settings{values, map[string]string{}}
	for _, name := range values.Secrets() {
		secret, _ := values.Secret(name)
		s.secrets[name] = secret.Literal
		if secret.File == "" {
			continue
		}
		data, err := readOwned(secret.File, maxSecret)
		if err != nil {
			return nil, failure.Errorf(failure.NotReady, "secret %s: %w", name, err)
		}
		s.secrets[name] = strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
	}
	return s, nil
}

// JSON returns the values without secrets.
func (s *settings) JSON() ([]byte, error) { return s.values.JSON(), nil }

// SecretNames returns the paths of the secrets that are set.
func (s *settings) SecretNames() []string { return s.values.Secrets() }

// Secret returns the value of a secret.
func (s *settings) Secret(name string) (string, bool) {
	v, ok := s.secrets[name]
	return v, ok
}
