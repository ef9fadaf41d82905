package repo

import (
	"encoding/binary"

	"github.com/zeebo/blake3"
)

// Positions is how many places there are for hosts in a rollout: a percentage
// with two decimals.
const Positions = 10000

// Rollout says for which part of the hosts a package is meant so far.
type Rollout struct {
	Percent float64 // 0 to 100; two decimals count
	// Salt makes each package begin with other hosts. It must stay the same
	// while the percentage grows.
	Salt string
}

// Includes reports whether a host is among those that the package is meant
// for, and the host's position, 0 to 9999. A host is included when its position
// is below a hundred times the percentage, so one that was included stays so
// while the percentage grows.
//
// The position is the first 8 bytes, big-endian, of BLAKE3 over the length of
// the salt (8 bytes, big-endian), the salt and the id of the host, modulo
// 10000. What is left of a preference for low positions is below 10⁻¹⁵.
func (r Rollout) Includes(hostID string) (in bool, position int) {
	b := binary.BigEndian.AppendUint64(nil, uint64(len(r.Salt)))
	b = append(b, r.Salt...)
	b = append(b, hostID...)
	sum := blake3.Sum256(b)
	position = int(binary.BigEndian.Uint64(sum[:8]) % Positions)
	return position < r.limit(), position
}

// limit is the first position that is not included. The percentage is rounded
// to two decimals: 0.29 is not quite 29 hundredths in binary.
func (r Rollout) limit() int { return int(r.Percent*100 + 0.5) }
