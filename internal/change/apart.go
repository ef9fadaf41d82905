package change

import (
	"fmt"

	"github.com/mobileops/mobileops/internal/failure"
)

// Apart returns nil when two identities are known to belong to different people,
// for whatever one person asks for and another approves. The error is
// ErrSamePerson when they are one, ErrUntold when that cannot be told, as of root
// that nobody logged in as. first is who acted first.
func (p *People) Apart(first, second Identity) error {
	switch r := p.relate(&first, &second); {
	case r.same:
		return fmt.Errorf("%w: %s", ErrSamePerson, r.why)
	case r.untold:
		return failure.Hint(fmt.Errorf("%w: %s", ErrUntold, r.why), "log in under an account of your own and use sudo")
	}
	if !p.tells(&first) {
		return fmt.Errorf("%w: %s asked, which anybody can have been", ErrUntold, first.Describe())
	}
	return nil
}
