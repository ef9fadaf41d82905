package manifest

import "time"

// ConfigPrefix begins a permission that stands for values of the
// configuration: "config:destinations[].address".
const ConfigPrefix = "config:"

// Rights of Permissions.Findings and Permissions.Audit.
const (
	RightRead   = "read"
	RightReport = "report"
)

// RunAsRoot is the value of Permissions.RunAs that means what it says.
const RunAsRoot = "root"

// Permissions are everything that a plugin may do beyond computing and using
// its own directory. The lists of places may have references to configuration
// (ConfigPrefix) in the place of a value.
type Permissions struct {
	Network      []string      `json:"network,omitempty"` // host:port
	Unix         []string      `json:"unix,omitempty"`    // sockets, by absolute path
	Read         []string      `json:"read,omitempty"`    // absolute paths, with everything beneath
	Write        []string      `json:"write,omitempty"`
	Exec         []string      `json:"exec,omitempty"`
	Memory       int64         `json:"memory_bytes"`
	CPU          time.Duration `json:"cpu_ns"` // CPU time of one call of a command or hook, not of a service; 0: no limit
	Processes    int           `json:"processes"`
	Files        int           `json:"files"`                   // open at a time, of one process
	FileSize     int64         `json:"file_size_bytes"`         // of one file that it writes
	RunAs        string        `json:"run_as,omitempty"`        // "": an account of its own
	Findings     []string      `json:"findings,omitempty"`      // RightRead, RightReport
	FindingsFrom []string      `json:"findings_from,omitempty"` // sources that RightRead is about; nil: all
	Audit        []string      `json:"audit,omitempty"`         // RightRead
}

// DefaultPermissions are those of a manifest that asks for none.
func DefaultPermissions() Permissions {
	return Permissions{Memory: 256 << 20, CPU: time.Minute, Processes: 16, Files: 256, FileSize: 1 << 30}
}

// ResolvedPermissions are Permissions without references: what Resolve made of
// the values of the configuration. Network has host:port in the form that
// Permissions.Resolve describes.
type ResolvedPermissions Permissions

// Line is a permission told to people.
type Line struct {
	Kind    string `json:"kind"`    // the key in plugin.yaml: "network", "hooks"
	What    string `json:"what"`    // "splunk.example:8088"
	Meaning string `json:"meaning"` // "may connect to splunk.example:8088"
}

// Change is a permission that is wider than it was.
type Change struct {
	Kind   string `json:"kind"`             // the key in plugin.yaml
	What   string `json:"what"`             // what is new, or how much there is now
	Before string `json:"before,omitempty"` // how much there was; "" when there was nothing
	// Meaning is for people: "may connect to splunk.example:8088".
	Meaning string `json:"meaning"`
}
