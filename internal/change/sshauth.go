package change

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
)

// Limits of what sshd writes about an authentication.
const (
	maxAuthFile = 64 << 10 // bytes
	maxAuthKey  = 16 << 10 // bytes of a public key or certificate
)

// SSHKeys returns the fingerprints of the keys that a session of SSH was begun
// with, from the file that SSH_USER_AUTH names where sshd has ExposeAuthInfo yes
// (sshd_config(5)). Only a file that root or one of the owners (uids) wrote
// counts.
func SSHKeys(path string, owners ...int64) ([]string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.Mode().IsRegular() || info.Mode().Perm()&0o022 != 0 || st.Uid != 0 && !slices.Contains(owners, int64(st.Uid)) {
		return nil, fmt.Errorf("%s is not what sshd wrote for this user", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxAuthFile+1))
	if err != nil {
		return nil, err
	}
	return ParseSSHAuth(data)
}

// ParseSSHAuth reads what sshd writes: a line for each method that succeeded,
// "publickey TYPE BASE64" among them. A certificate counts as the key in it,
// which stays the same when the certificate is renewed.
func ParseSSHAuth(data []byte) (keys []string, err error) {
	if len(data) > maxAuthFile {
		return nil, fmt.Errorf("%d bytes are more than sshd writes", len(data))
	}
	offset := 0
	for line := range strings.SplitAfterSeq(string(data), "\n") {
		words := strings.Fields(line)
		if len(words) >= 3 && (words[0] == "publickey" || words[0] == "hostbased") {
			blob, err := base64.StdEncoding.DecodeString(words[2])
			if err != nil || len(blob) > maxAuthKey {
				return nil, fmt.Errorf("byte %d: no public key of SSH", offset)
			}
			if blob, err = plainKey(blob); err != nil {
				return nil, fmt.Errorf("byte %d: %w", offset, err)
			}
			// A host vouches for all its users, so its key is nobody's.
			if key := Fingerprint(blob); words[0] == "publickey" && !slices.Contains(keys, key) && len(keys) < MaxKeys {
				keys = append(keys, key)
			}
		}
		offset += len(line)
	}
	return keys, nil
}

// Fingerprint returns what ssh-keygen -l shows of a public key in the form of RFC
// 4253, section 6.6: SHA256 in base64 without padding.
func Fingerprint(blob []byte) string {
	sum := sha256.Sum256(blob)
	return "SHA256:" + rawBase64.EncodeToString(sum[:])
}

// certificate is the end of the name of every type of certificate of OpenSSH.
const certificate = "-cert-v01@openssh.com"

// keyFields are how many fields of a certificate are its public key, by the type
// of that (PROTOCOL.certkeys and PROTOCOL.u2f of OpenSSH).
func keyFields(typ string) int {
	switch {
	case typ == "ssh-ed25519":
		return 1
	case typ == "ssh-rsa", strings.HasPrefix(typ, "rsa-sha2-"), strings.HasPrefix(typ, "ecdsa-sha2-"), strings.HasPrefix(typ, "sk-ssh-ed25519"):
		return 2
	case strings.HasPrefix(typ, "sk-ecdsa-sha2-"):
		return 3
	case typ == "ssh-dss":
		return 4
	}
	return 0
}

// plainKey returns a public key as it is, and of a certificate the key in it.
func plainKey(blob []byte) ([]byte, error) {
	typ, rest, ok := field(blob)
	if !ok || len(typ) == 0 {
		return nil, errors.New("no public key of SSH")
	}
	plain, isCert := strings.CutSuffix(string(typ), certificate)
	if !isCert {
		return blob, nil
	}
	count := keyFields(plain)
	if strings.HasPrefix(plain, "sk-") {
		plain += "@openssh.com"
	}
	out := binary.BigEndian.AppendUint32(nil, uint32(len(plain)))
	out = append(out, plain...)
	_, rest, ok = field(rest) // the nonce
	for ; ok && count > 0; count-- {
		from := rest
		_, rest, ok = field(rest)
		out = append(out, from[:len(from)-len(rest)]...)
	}
	if !ok || keyFields(strings.TrimSuffix(plain, "@openssh.com")) == 0 {
		return nil, fmt.Errorf("no certificate of a known type: %q", typ)
	}
	return out, nil
}

// field takes a string of RFC 4251, section 5, off the front.
func field(b []byte) (value, rest []byte, ok bool) {
	if len(b) < 4 {
		return nil, b, false
	}
	n := binary.BigEndian.Uint32(b)
	if uint64(n) > uint64(len(b)-4) {
		return nil, b, false
	}
	return b[4 : 4+n], b[4+n:], true
}
