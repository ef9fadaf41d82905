package ledger

import "strings"

// stableName returns the name of a package without what makes it another one with
// every build. Distributions put the version of the kernel into the names of its
// packages, so that several can be installed: linux-image-6.1.0-28-amd64 becomes
// linux-image-amd64, or each point release would make hundreds of new items.
func stableName(name string) string {
	if !strings.HasPrefix(name, "linux-") && !strings.HasPrefix(name, "kernel-") {
		return name
	}
	parts := strings.Split(name, "-")
	kept := parts[:1]
	for i := 1; i < len(parts); i++ {
		if !kernelVersion(parts[i]) {
			kept = append(kept, parts[i])
			continue
		}
		// The ABI follows: 28, 0.deb11.28, 91. An architecture that is a number, such
		// as 686, has no ABI before it only where the version has none.
		if i+1 < len(parts) && strings.Count(parts[i], ".") >= 2 && !strings.Contains(parts[i], "+") && startsWithDigit(parts[i+1]) {
			i++
		}
	}
	return strings.Join(kept, "-")
}

// kernelVersion reports whether a part of a name is a version: digits with a dot
// between them, and anything after that.
func kernelVersion(part string) bool {
	major, rest, ok := strings.Cut(part, ".")
	return ok && digits(major) && startsWithDigit(rest)
}

func startsWithDigit(s string) bool { return s != "" && s[0] >= '0' && s[0] <= '9' }

func digits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}
