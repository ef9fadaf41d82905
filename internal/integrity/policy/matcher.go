package policy

// Matcher decides for every entry of a tree walk which rule applies. It may be
// used from several goroutines.
type Matcher struct{}

// State is what a Matcher knows about one directory.
type State struct{}

// Compile prepares the policy for a walk.
func (p *Policy) Compile() *Matcher { panic("skeleton") }

// Root returns the state of "/".
func (m *Matcher) Root() *State { panic("skeleton") }

// RootRule returns the rule for "/" itself, nil when it is not covered.
func (m *Matcher) RootRule() *Rule { panic("skeleton") }

// Enter returns the state of a child directory.
func (s *State) Enter(name []byte) *State { panic("skeleton") }

// Rule returns the rule that decides a child entry, nil when it is outside
// Paths or excluded.
func (s *State) Rule(name []byte) *Rule { panic("skeleton") }

// Prune reports that no entry below the directory can be covered.
func (s *State) Prune() bool { panic("skeleton") }

// OnlyNames returns the only children that can be covered or lead to covered
// entries, sorted, when they are known by name; then the directory need not
// be listed.
func (s *State) OnlyNames() ([]string, bool) { panic("skeleton") }
