package query

import (
	"math"
	"math/bits"
	"slices"
)

// sketch tells quantiles of numbers. Up to exactValues of them it keeps the
// numbers themselves; beyond that it counts them in buckets whose bounds grow
// by growth, so that what it tells is off by 1 % at most (the idea of DDSketch,
// Masson, Rim and Lee, VLDB 2019). Sketches of parts can be joined.
type sketch struct {
	exact    []float64
	n        int64
	positive map[int]int64 // by bucket
	negative map[int]int64
	zero     int64
}

const (
	exactValues = 1000
	growth      = 1.02
	// Magnitudes beyond these are counted with them.
	smallest, greatest = 1e-9, 1e18
)

func (s *sketch) add(x float64) {
	if s.n++; s.positive == nil {
		if s.exact = append(s.exact, x); len(s.exact) <= exactValues {
			return
		}
		s.spread()
		return
	}
	s.put(x, 1)
}

// spread moves the numbers into buckets.
func (s *sketch) spread() {
	s.positive, s.negative = map[int]int64{}, map[int]int64{}
	for _, x := range s.exact {
		s.put(x, 1)
	}
	s.exact = nil
}

func (s *sketch) put(x float64, n int64) {
	switch {
	case math.Abs(x) < smallest:
		s.zero += n
	case x > 0:
		s.positive[magnitude(x)] += n
	default:
		s.negative[magnitude(-x)] += n
	}
}

func magnitude(x float64) int {
	return int(math.Ceil(math.Log(math.Min(x, greatest)) / math.Log(growth)))
}

// middle is the number that a bucket stands for: as far from its upper bound
// as from its lower one, relatively.
func middle(bucket int) float64 { return 2 * math.Pow(growth, float64(bucket)) / (1 + growth) }

// quantile returns the smallest number that a share q of all is not above.
func (s *sketch) quantile(q float64) (float64, bool) {
	if s.n == 0 {
		return 0, false
	}
	rank := max(int64(math.Ceil(q*float64(s.n))), 1)
	if s.positive == nil {
		slices.Sort(s.exact)
		return s.exact[rank-1], true
	}
	for _, b := range sortedKeys(s.negative, true) {
		if rank -= s.negative[b]; rank <= 0 {
			return -middle(b), true
		}
	}
	if rank -= s.zero; rank <= 0 {
		return 0, true
	}
	last := 0.0
	for _, b := range sortedKeys(s.positive, false) {
		last = middle(b)
		if rank -= s.positive[b]; rank <= 0 {
			break
		}
	}
	return last, true
}

func sortedKeys(m map[int]int64, backwards bool) []int {
	keys := make([]int, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	if backwards {
		slices.Reverse(keys)
	}
	return keys
}

// join adds what another sketch has seen.
func (s *sketch) join(o *sketch) {
	if o.positive == nil {
		for _, x := range o.exact {
			s.add(x)
		}
		return
	}
	if s.positive == nil {
		s.spread()
	}
	s.n += o.n
	s.zero += o.zero
	for b, n := range o.positive {
		s.positive[b] += n
	}
	for b, n := range o.negative {
		s.negative[b] += n
	}
}

// distinct counts different texts. Up to exactTexts it keeps a hash of each,
// which makes the count exact; beyond that it is a HyperLogLog (Flajolet et al.
// 2007) with 4096 registers, whose standard error is 1.6 %.
type distinct struct {
	hashes    map[uint64]struct{}
	registers []uint8
}

const (
	exactTexts    = 16 << 10
	registerBits  = 12
	registerCount = 1 << registerBits
)

func (d *distinct) add(h uint64) {
	if d.registers != nil {
		d.register(h)
		return
	}
	if d.hashes == nil {
		d.hashes = map[uint64]struct{}{}
	}
	if d.hashes[h] = struct{}{}; len(d.hashes) > exactTexts {
		d.spread()
	}
}

func (d *distinct) spread() {
	d.registers = make([]uint8, registerCount)
	for h := range d.hashes {
		d.register(h)
	}
	d.hashes = nil
}

func (d *distinct) register(h uint64) {
	i := h >> (64 - registerBits)
	zeros := uint8(bits.LeadingZeros64(h<<registerBits|1<<(registerBits-1))) + 1
	d.registers[i] = max(d.registers[i], zeros)
}

func (d *distinct) count() float64 {
	if d.registers == nil {
		return float64(len(d.hashes))
	}
	const m = registerCount
	sum, empty := 0.0, 0
	for _, r := range d.registers {
		sum += math.Ldexp(1, -int(r))
		if r == 0 {
			empty++
		}
	}
	estimate := 0.7213 / (1 + 1.079/m) * m * m / sum
	if estimate <= 2.5*m && empty > 0 {
		estimate = m * math.Log(m/float64(empty))
	}
	return math.Round(estimate)
}

func (d *distinct) join(o *distinct) {
	for h := range o.hashes {
		d.add(h)
	}
	if o.registers == nil {
		return
	}
	if d.registers == nil {
		d.spread()
	}
	for i, r := range o.registers {
		d.registers[i] = max(d.registers[i], r)
	}
}

// hash is FNV-1a with the last mixing step of MurmurHash3: the same in every
// process, so that counts of parts can be joined.
func hash(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := 0; i < len(s); i++ {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}
