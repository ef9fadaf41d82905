package policy

import (
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/mobileops/mobileops/internal/document"
	"github.com/mobileops/mobileops/internal/failure"
)

//go:embed builtin/system.yaml builtin/mobileops.yaml builtin/full.yaml
var builtinFiles embed.FS

// builtinNames are the files of the directory builtin, the default first.
var builtinNames = []string{"system", "mobileops", "full"}

// BuiltinNames returns the names of the built-in policies, the default first.
func BuiltinNames() []string { return slices.Clone(builtinNames) }

// Source returns the file of a built-in policy, with its comments.
func Source(name string) ([]byte, error) {
	if !slices.Contains(builtinNames, name) {
		return nil, failure.Errorf(failure.Usage, "no built-in policy %q%s", name, document.DidYouMean(name, builtinNames))
	}
	return builtinFiles.ReadFile("builtin/" + name + ".yaml")
}

// Builtin returns a built-in policy.
func Builtin(name string) (*Policy, error) {
	data, err := Source(name)
	if err != nil {
		return nil, err
	}
	return Parse(name+".yaml", data)
}

// Load returns the built-in policy of that name, else reads the file. A file
// with the name of a built-in policy is read when it is written with a
// directory: "./system".
func Load(nameOrPath string) (*Policy, error) {
	if slices.Contains(builtinNames, nameOrPath) {
		return Builtin(nameOrPath)
	}
	data, err := ReadFile(nameOrPath)
	if err != nil {
		return nil, err
	}
	return Parse(nameOrPath, data)
}

// ReadFile reads a policy file without parsing it, at most one byte more than
// a policy may have.
func ReadFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, failure.Errorf(failure.Usage, "no policy %q: neither a built-in one (%s) nor a file%s",
			path, strings.Join(builtinNames, ", "), document.DidYouMean(path, builtinNames))
	} else if errors.Is(err, fs.ErrPermission) {
		return nil, failure.Wrap(failure.NotAllowed, err)
	} else if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("reading the policy: %w", err)
	}
	return data, nil
}
