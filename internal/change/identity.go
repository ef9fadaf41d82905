package change

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/mobileops/mobileops/internal/audit"
)

// Identity is all that is known about who acts: the accounts that the kernel
// names, and the keys that were proved. It is kept as it was at the time; which
// person it belongs to is asked of People whenever it matters.
type Identity struct {
	audit.Actor
	LoginUser string   `json:"login_user,omitempty"` // name of the login uid
	Keys      []string `json:"keys,omitempty"`       // "SHA256:…" of SSH, or a public key of minisign
	Person    string   `json:"person,omitempty"`     // whom People knew it as, for readers
}

// Describe names who it is in a few words, for messages.
func (i *Identity) Describe() string {
	name := i.User
	switch {
	case i.UID < 0 && len(i.Keys) > 0:
		name = "key " + KeyID(i.Keys[0])
	case name == "":
		name = "uid " + strconv.Itoa(i.UID)
	}
	if i.LoginUID >= 0 && i.LoginUID != int64(i.UID) {
		login := i.LoginUser
		if login == "" {
			login = "uid " + strconv.FormatInt(i.LoginUID, 10)
		}
		name += " (login " + login + ")"
	}
	if i.Person != "" && i.Person != name {
		name = i.Person + ", " + name
	}
	return name
}

// accounts returns the uids that stand for whoever this is. Root that was
// reached from a login says nothing: the login counts.
func (i *Identity) accounts() (uids []int64) {
	if i.LoginUID >= 0 {
		uids = append(uids, i.LoginUID)
	}
	if i.UID > 0 && int64(i.UID) != i.LoginUID || i.UID == 0 && i.LoginUID < 0 {
		uids = append(uids, int64(i.UID))
	}
	return uids
}

// names returns the names of the accounts, as far as they are known.
func (i *Identity) names() (names []string) {
	if i.LoginUser != "" && i.LoginUID >= 0 {
		names = append(names, i.LoginUser)
	}
	if i.User != "" && slices.Contains(i.accounts(), int64(i.UID)) {
		names = append(names, i.User)
	}
	return names
}

// remote is the identity that an API vouches for. An address is none: people
// share those of gateways. Nor is what sshd says where there is none.
func (i *Identity) remote() string {
	if _, err := netip.ParseAddr(i.Remote); err == nil || i.Remote == "UNKNOWN" {
		return ""
	}
	return i.Remote
}

// bySignature says that it is known by a signature alone.
func (i *Identity) bySignature() bool { return i.UID < 0 }

func (i *Identity) validate() error {
	for _, s := range append([]string{i.User, i.LoginUser, i.TTY, i.Remote, i.Person}, i.Keys...) {
		if err := validText("identity", s, MaxText); err != nil {
			return err
		}
	}
	if len(i.Keys) > MaxKeys || i.UID < -1 || i.LoginUID < -1 {
		return fmt.Errorf("%w: an identity has %d keys, uid %d and login uid %d", ErrInvalid, len(i.Keys), i.UID, i.LoginUID)
	}
	return nil
}

// relation is how two identities stand to each other: the same person, untold,
// or, when neither, different people.
type relation struct {
	same, untold bool
	why          string
}

// relate compares who acted first with who acts now. Whatever they share makes
// them the same. They are untold where what is known of the second could just as
// well be the first; no key that a program claims to have been used, which comes
// from its environment, makes them different.
func (p *People) relate(first, second *Identity) relation {
	a, b := p.personOf(first), p.personOf(second)
	for _, name := range a {
		if slices.Contains(b, name) {
			return relation{same: true, why: fmt.Sprintf("both are %s", name)}
		}
	}
	for _, uid := range first.accounts() {
		if slices.Contains(second.accounts(), uid) {
			what := "uid"
			if uid == first.LoginUID || uid == second.LoginUID {
				what = "login uid"
			}
			return relation{same: true, why: fmt.Sprintf("both have the %s %d", what, uid)}
		}
	}
	for _, k := range first.Keys {
		if slices.Contains(second.Keys, k) {
			return relation{same: true, why: "both have the key " + KeyID(k)}
		}
	}
	if r := first.remote(); r != "" && r == second.remote() {
		return relation{same: true, why: "both are " + r}
	}
	switch {
	case first.bySignature() || second.bySignature():
		for _, x := range []*Identity{first, second} {
			if len(p.sure(x)) == 0 {
				return relation{untold: true, why: x.Describe() + " is nobody whose account the file of people names, so which keys they have is not known"}
			}
		}
	case second.LoginUID > 0:
	case second.LoginUID == 0 && len(p.sure(second)) == 0:
		return relation{untold: true, why: "root logged in, and that can be everybody who knows its password"}
	case second.LoginUID == 0:
	case second.UID == 0:
		return relation{untold: true, why: "root has no login uid here, so nobody can tell who became root"}
	case first.LoginUID >= 0 || first.UID == 0:
		return relation{untold: true, why: second.Describe() + " has no login uid here, as if another process had been told to run this"}
	}
	return relation{}
}

// sure returns the people to whom belongs what nobody but root can make up: the
// account that logged in, or that of the process where nobody did; or the key of
// a signature. A key of SSH comes from the environment, and other accounts are
// reached from a login.
func (p *People) sure(i *Identity) []string {
	switch {
	case i.bySignature():
		return p.personOf(i)
	case i.LoginUID >= 0:
		return p.personOf(&Identity{Actor: audit.Actor{UID: 0, LoginUID: i.LoginUID}, LoginUser: i.LoginUser})
	}
	return p.personOf(&Identity{Actor: audit.Actor{UID: i.UID, LoginUID: -1, User: i.User}})
}

// tells says whether it can be told who this is, when it is who asks. Where
// nobody logged in, root can be anybody, and another account one that anybody
// had run this, unless the file of people says whose it is.
func (p *People) tells(i *Identity) bool {
	switch {
	case i.LoginUID > 0:
		return true
	case i.LoginUID < 0 && i.UID == 0:
		return false
	}
	return len(p.sure(i)) > 0
}

// howToTell says what helps when people cannot be told apart.
const howToTell = "log in under an account of your own and use sudo; or sign: mobileops change show ID --message, then change approve ID --signature FILE"

// KeyID shortens a key to what people know it by.
func KeyID(key string) string {
	if k, err := parseMinisignKey(key); err == nil {
		return fmt.Sprintf("%016X", k.ID())
	}
	return key
}

// parseFingerprint reads the fingerprint of a key of SSH as ssh-keygen -l writes
// it: "SHA256:" and 43 characters of base64.
func parseFingerprint(s string) error {
	rest, ok := strings.CutPrefix(s, "SHA256:")
	if b, err := rawBase64.DecodeString(rest); !ok || err != nil || len(b) != 32 {
		return errors.New("is not SHA256: and 43 characters, as ssh-keygen -l writes it")
	}
	return nil
}
