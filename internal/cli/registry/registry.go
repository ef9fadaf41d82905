// Package registry reads passwords for servers from a file, as docker login and
// podman login write it. See docker-login(1) and containers-auth.json(5).
package registry

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"github.com/mobileops/mobileops/internal/failure"
)

// Credential is what one host wants to know. The zero value is nothing.
type Credential struct {
	Username, Password string
	Token              string // sent as a bearer token; the other two are not sent then
}

// maxCredentials bounds a file of passwords, in bytes.
const maxCredentials = 1 << 20

// dockerConfig is what counts of a config.json of docker login and its like. See
// docker-login(1) and containers-auth.json(5).
type dockerConfig struct {
	Auths map[string]struct {
		Auth          string `json:"auth"` // base64 of USER:PASSWORD
		Username      string `json:"username"`
		Password      string `json:"password"`
		RegistryToken string `json:"registrytoken"`
	} `json:"auths"`
	CredsStore  string            `json:"credsStore"`
	CredHelpers map[string]string `json:"credHelpers"`
}

// Credentials returns what looks up passwords in a file, in the type of whoever
// asks a server; "": there are none. The file is read when a server asks. key is
// that of the configuration, which names the file.
func Credentials[C ~struct{ Username, Password, Token string }](path, key string) func(context.Context, string) (C, error) {
	if path == "" {
		return nil
	}
	return func(_ context.Context, host string) (C, error) {
		c, err := readCredentials(path, key)
		if err != nil {
			return C{}, err
		}
		found, err := c.of(path, host)
		return C(found), err
	}
}

// Check says what is wrong with the file before a server is asked.
func Check(path, key string) error {
	if path == "" {
		return nil
	}
	_, err := readCredentials(path, key)
	return err
}

// readCredentials reads a file that nobody else may read.
func readCredentials(path, key string) (*dockerConfig, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, failure.Hint(failure.Wrap(failure.NotReady, err), key+" names it")
	}
	if err != nil {
		return nil, failure.Wrap(failure.NotAllowed, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0 || st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return nil, failure.Errorf(failure.NotAllowed, "%s has passwords that others than root or you can read or change (chmod 600 %s)", path, path)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxCredentials+1))
	if err != nil {
		return nil, err
	}
	var c dockerConfig
	if len(data) > maxCredentials {
		err = errors.New("it is too long")
	} else {
		err = json.Unmarshal(data, &c)
	}
	if err != nil { // without what the decoder quotes of the file
		return nil, failure.Errorf(failure.NotReady, "%s is not as docker login writes it: {\"auths\": {\"HOST\": {\"auth\": \"…\"}}}", path)
	}
	return &c, nil
}

// of returns what the file has for a host; nothing is no error, for the server
// may want none.
func (c *dockerConfig) of(path, host string) (Credential, error) {
	for name, auth := range c.Auths {
		if hostOf(name) != strings.ToLower(host) {
			continue
		}
		switch {
		case auth.RegistryToken != "":
			return Credential{Token: auth.RegistryToken}, nil
		case auth.Auth == "" && auth.Username != "":
			return Credential{Username: auth.Username, Password: auth.Password}, nil
		case auth.Auth != "":
			both, err := base64.StdEncoding.DecodeString(auth.Auth)
			user, password, ok := strings.Cut(string(both), ":")
			if err != nil || !ok {
				return Credential{}, failure.Errorf(failure.NotReady, "%s: auth of %s is not base64 of USER:PASSWORD", path, host)
			}
			return Credential{Username: user, Password: strings.TrimRight(password, "\x00")}, nil
		case c.CredsStore != "" || c.CredHelpers[name] != "":
			return Credential{}, failure.Errorf(failure.NotReady, "%s leaves the password of %s to a credential helper; write it into the file (auth: base64 of USER:PASSWORD)", path, host)
		}
	}
	return Credential{}, nil
}

// hostOf is the host of a key of auths, which older programs write as a URL.
func hostOf(key string) string {
	if _, rest, ok := strings.Cut(key, "://"); ok {
		key = rest
	}
	key, _, _ = strings.Cut(key, "/")
	return strings.ToLower(key)
}
