package config

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/spf13/viper"
)

// Sources are the places that configuration comes from. A flag goes before the
// environment, that before the file, and the file before the default.
type Sources struct {
	File   string               // --config; "": MOBILEOPS_CONFIG, else the usual place
	Flags  map[string]FlagValue // by key, such as "state_dir"
	Getenv func(string) string
	UID    int // effective user id; 0 is root
}

// FlagValue is a flag that was given.
type FlagValue struct{ Name, Value string }

// Loaded is a configuration and where each value came from.
type Loaded struct {
	Config
	File    string            // the file that was read; "" when there is none
	Origins map[string]Origin // by key
}

// Origin says where a value came from.
type Origin struct {
	Kind  string `json:"kind"`            // "flag", "environment", "file" or "default"
	Where string `json:"where,omitempty"` // "--state-dir", "MOBILEOPS_STATE_DIR", "/etc/mobileops/config.yaml:3"
}

// FileOf returns the configuration file that would be read, and whether it was
// named by flag or environment, so that it must exist. It is "" when HOME is
// not set.
func FileOf(s Sources) (path string, named bool) {
	if s.File != "" {
		return s.File, true
	}
	if path := s.Getenv("MOBILEOPS_CONFIG"); path != "" {
		return path, true
	}
	return UsualPaths(s.UID, s.Getenv).Config, false
}

// Load reads the configuration. Everything that is wrong with it is said in
// one error, joined line by line, with file and line where it has one.
func Load(s Sources) (*Loaded, error) {
	l := &Loaded{Origins: make(map[string]Origin)}
	path, named := FileOf(s)
	var inFile map[string]setting
	var problems []error
	if path != "" {
		data, err := readFile(path, s.UID)
		switch {
		case err == nil:
			l.File = path
			var found []*Problem
			inFile, found = parseFile(path, data)
			for _, p := range found {
				problems = append(problems, p)
			}
		case errors.Is(err, fs.ErrNotExist) && !named:
		case errors.Is(err, fs.ErrNotExist):
			return nil, failure.Hint(failure.Errorf(failure.Usage, "no configuration file %s", path), "create one: mobileops config init")
		case errors.Is(err, fs.ErrPermission) && !named: // su and setpriv leave HOME as it was
			return nil, failure.Hint(err, "it was looked for in HOME, which may be another user's; or name a file: --config FILE")
		default:
			return nil, err
		}
	}
	problems = append(problems, l.fill(s, inFile)...)
	if err := errors.Join(problems...); err != nil {
		return nil, failure.Wrap(failure.Usage, err)
	}
	return l, nil
}

// Validate returns everything that is wrong with a file, and an error when it
// cannot be read.
func Validate(path string, s Sources) ([]*Problem, error) {
	data, err := readFile(path, s.UID)
	if err != nil {
		return nil, err
	}
	settings, problems := parseFile(path, data)
	for _, k := range Keys() {
		if set, ok := settings[k.Name]; ok {
			if err := k.read(new(Config), set.value, true); err != nil {
				problems = append(problems, &Problem{path, set.line, err.Error()})
			}
		}
	}
	return problems, nil
}

// fill sets every key from the source that decides it.
func (l *Loaded) fill(s Sources, inFile map[string]setting) (problems []error) {
	// viper merges: what is merged later goes before what was merged earlier,
	// what is Set goes before both.
	v := viper.NewWithOptions(viper.KeyDelimiter("\x00")) // keys are flat names here
	fromFile, fromEnv := make(map[string]any), make(map[string]any)
	for name, set := range inFile {
		fromFile[name] = set.value
	}
	keys := Keys()
	for _, k := range keys {
		if k.Default != "" {
			v.SetDefault(k.Name, k.Default)
		}
		if value := s.Getenv(k.Env()); value != "" {
			fromEnv[k.Name] = value
		}
		if f, ok := s.Flags[k.Name]; ok {
			v.Set(k.Name, f.Value)
		}
	}
	for _, m := range []map[string]any{fromFile, fromEnv} {
		if err := v.MergeConfigMap(m); err != nil {
			return []error{err}
		}
	}
	paths := UsualPaths(s.UID, s.Getenv)
	for _, k := range keys {
		origin := Origin{Kind: "default"}
		prefix := k.Name
		if f, ok := s.Flags[k.Name]; ok {
			origin, prefix = Origin{"flag", f.Name}, f.Name
		} else if _, ok := fromEnv[k.Name]; ok {
			origin, prefix = Origin{"environment", k.Env()}, k.Env()
		} else if set, ok := inFile[k.Name]; ok {
			origin = Origin{"file", fmt.Sprintf("%s:%d", l.File, set.line)}
			prefix = origin.Where + ": " + k.Name
		}
		l.Origins[k.Name] = origin
		value := v.GetString(k.Name)
		if origin.Kind == "default" && k.Default == "" {
			value = map[string]string{"state_dir": paths.StateDir, "log_dir": paths.LogDir, "run_dir": paths.RunDir, "update.keys": paths.UpdateKeys,
				"plugin.dir": paths.PluginDir, "plugin.config_dir": paths.PluginConfig, "plugin.keys": paths.PluginKeys}[k.Name]
			if value == "" {
				if k.Name == "state_dir" { // the others follow from it
					problems = append(problems, failure.Hint(errors.New("state_dir is not known, since HOME is not set"), "say it: --state-dir DIR"))
				}
				continue
			}
		}
		if err := k.read(&l.Config, value, origin.Kind == "file"); err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", prefix, withoutName(err)))
		}
		if k.Name == "state_dir" && origin.Kind != "default" {
			// Logs and locks of another state must not mix with the usual ones.
			paths = paths.beneath(l.StateDir)
		}
	}
	return problems
}

// valueError is a value that a key does not take.
type valueError struct {
	name, value string
	err         error
}

func (e *valueError) Error() string { return e.name + ": " + withoutName(e).Error() }

func withoutName(err error) error {
	var v *valueError
	if errors.As(err, &v) {
		return fmt.Errorf("%q %w", v.value, v.err)
	}
	return err
}

// read checks a value and stores it in c.
func (k Key) read(c *Config, value string, inFile bool) error {
	if k.Path && !(k.Optional && value == "") {
		clean, err := absolute(value, inFile)
		if err != nil {
			return &valueError{k.Name, value, err}
		}
		value = clean
	}
	if err := k.set(c, value); err != nil {
		return &valueError{k.Name, value, err}
	}
	return nil
}
