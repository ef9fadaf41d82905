// Package cpuid stands in for github.com/klauspost/cpuid/v2 with the little of it
// that the BLAKE3 libraries ask, whether the processor has SSE4.1, AVX2 and
// AVX-512F, and what libraries of mobileops-scan ask.
//
// The original looks at everything that a processor tells, when the program
// starts. In a virtual machine each CPUID instruction leaves the guest, and
// all of them together take 0.4 to 0.6 ms: a tenth of the time from the start
// of "network isolate" to a host that is cut off, and as much of every press of
// Tab. The Go runtime's own detection, which golang.org/x/sys/cpu exposes, knows
// the same three answers. bench/network/start measures it.
package cpuid

import "golang.org/x/sys/cpu"

// FeatureID names a feature of processors.
type FeatureID int

// The features that are asked for.
const (
	SSE4 FeatureID = iota // SSE4.1, as the original calls it
	AVX2
	AVX512F
	SSE2
	SSE3
	AVX
	SHA1 // of ARM
	SHA  // of x86, which the detection of the Go runtime does not tell: code for it is never taken
)

// CPUInfo is the processor that the program runs on.
type CPUInfo struct{}

// CPU is the processor that the program runs on.
var CPU CPUInfo

// Has reports whether the processor has a feature, and the operating system
// keeps its registers.
func (CPUInfo) Has(id FeatureID) bool {
	switch id {
	case SSE4:
		return cpu.X86.HasSSE41
	case AVX2:
		return cpu.X86.HasAVX2
	case AVX512F:
		return cpu.X86.HasAVX512F
	case SSE2:
		return cpu.X86.HasSSE2
	case SSE3:
		return cpu.X86.HasSSE3
	case AVX:
		return cpu.X86.HasAVX
	case SHA1:
		return cpu.ARM64.HasSHA1
	}
	return false
}

// Supports reports whether the processor has all of the features.
func (c CPUInfo) Supports(ids ...FeatureID) bool {
	for _, id := range ids {
		if !c.Has(id) {
			return false
		}
	}
	return true
}
