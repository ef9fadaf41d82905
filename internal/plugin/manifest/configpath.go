package manifest

import (
	"errors"
	"fmt"
	"strings"

	"github.com/mobileops/mobileops/internal/document"
)

// step is one part of a path of the configuration: a key, and how many lists
// are gone through behind it.
type step struct {
	key   string
	lists int
}

// parseConfigPath reads a path such as "destinations[].address". Each [] goes
// through every item of a list.
func parseConfigPath(p string) ([]step, error) {
	if len(p) > maxPath {
		return nil, fmt.Errorf("has %d bytes; %d are allowed", len(p), maxPath)
	}
	var steps []step
	for part := range strings.SplitSeq(p, ".") {
		s := step{key: part}
		for strings.HasSuffix(s.key, "[]") {
			s.key = strings.TrimSuffix(s.key, "[]")
			s.lists++
		}
		if !isKey(s.key) || s.lists > maxOptionDepth {
			return nil, errors.New("is no path of the configuration, such as destinations[].address")
		}
		steps = append(steps, s)
	}
	if len(steps) > maxOptionDepth {
		return nil, fmt.Errorf("is more than %d keys deep", maxOptionDepth)
	}
	return steps, nil
}

// leaf returns the option that a path leads to, which has single values.
func (os Options) leaf(path string) (*Option, error) {
	at, err := os.follow(path)
	if err != nil {
		return nil, err
	}
	switch at.Type {
	case TypeList:
		return nil, errors.New("leads to a list; write [] behind it for its items")
	case TypeObject:
		return nil, errors.New("leads to an object; name the property of it that is meant")
	}
	return at, nil
}

// follow returns the option that a path leads to.
func (os Options) follow(path string) (*Option, error) {
	steps, err := parseConfigPath(path)
	if err != nil {
		return nil, err
	}
	var at *Option
	for i, s := range steps {
		if i > 0 {
			if at.Type != TypeObject {
				return nil, fmt.Errorf("goes on at %s behind a %s", quote(s.key), at.Type)
			}
			os = at.Properties
		}
		if at = os.find(s.key); at == nil {
			names := make([]string, len(os))
			for i := range os {
				names[i] = os[i].Name
			}
			return nil, fmt.Errorf("has %s, which config does not have%s", quote(s.key), document.DidYouMean(s.key, names))
		}
		for range s.lists {
			if at.Type != TypeList || at.Items == nil {
				return nil, fmt.Errorf("has [] behind %s, which is no list", quote(s.key))
			}
			at = at.Items
		}
	}
	return at, nil
}

func (os Options) find(name string) *Option {
	for i := range os {
		if os[i].Name == name {
			return &os[i]
		}
	}
	return nil
}

// defaultsOf returns the values that a path leads to while the admin sets
// none: they are chosen by who made the plugin.
func (os Options) defaultsOf(path string) []string {
	o, err := os.leaf(path)
	if err != nil {
		return nil
	}
	if s, ok := o.Default.(string); ok && s != "" {
		return []string{s}
	}
	list, ok := strings.CutSuffix(path, "[]")
	if !ok {
		return nil
	}
	var out []string
	if holder, err := os.follow(list); err == nil {
		items, _ := holder.Default.([]any)
		for _, v := range items {
			if s, ok := v.(string); ok && s != "" {
				out = append(out, s)
			}
		}
	}
	return out
}
