package compat

import "strings"

// Script is one of the shell scripts that mobileops replaces.
type Script struct {
	Name  string // "network_configure.sh"
	Does  string // one sentence, no full stop
	Calls []Call
}

// Call is one way in which a script was called, and the command that it has
// become. What follows the words of the old call is handed on as it is.
type Call struct {
	Old  string   // the words after the script's name: "isolate-threat"
	Args string   // what follows them: "ID"
	New  string   // the command after "mobileops": "network isolate-threat"
	With []string // arguments that the new command gets first
	Does string   // a few words, no full stop

	// Pending calls have no command yet; they end with status 7. A test fails
	// when the command exists and this was forgotten, and the other way round.
	Pending bool
}

// NewCall is how the call is written now: "mobileops network isolate-threat ID".
func (c Call) NewCall() string {
	return strings.Join(strings.Fields("mobileops "+c.New+" "+strings.Join(c.With, " ")+" "+c.Args), " ")
}

// OldCall is how the call was written: "network_configure.sh isolate-threat ID".
func (c Call) OldCall(s Script) string {
	return strings.Join(strings.Fields(s.Name+" "+c.Old+" "+c.Args), " ")
}

// verbs makes calls whose verb has kept its name below a noun. Each line is
// "verb [ARGS]: what it does", with a "?" in front while it is pending.
func verbs(noun string, lines ...string) (calls []Call) {
	for _, line := range lines {
		call, does, _ := strings.Cut(line, ": ")
		call, pending := strings.CutPrefix(call, "?")
		verb, args, _ := strings.Cut(call, " ")
		calls = append(calls, Call{Old: verb, Args: args, New: noun + " " + verb, Does: does, Pending: pending})
	}
	return calls
}

// provisioned makes calls of the provisioner, which took the component with or
// without the word "provision" before it.
func provisioned(components ...string) (calls []Call) {
	for _, c := range components {
		calls = append(calls, Call{Old: c, New: "component provision", With: []string{c}, Does: "provision " + c, Pending: true})
	}
	return append(calls, Call{Old: "provision", Args: "COMPONENT", New: "component provision", Does: "provision a component", Pending: true})
}

// Scripts returns every script and every call, in the order of the manual.
func Scripts() []Script {
	return []Script{
		{"toolbox_integrity_check.sh", "Watch over the integrity of files", verbs("integrity",
			"check: compare with the baseline",
			"baseline: record how things are now",
			"verify: compare with the baseline, reading every byte",
			"binaries: check the critical binaries",
			"network: check the network configuration",
			"containers: check container images and their configuration",
			"?scan-mobile-app [APP]: look for weaknesses in a mobile app",
		)},
		{"network_configure.sh", "Isolate, connect and watch networks", verbs("network",
			"isolate: cut this host off, except for its administration",
			"isolate-threat ID: cut off what a threat comes from",
			"setup-container: set up the network of containers",
			"setup-vm: set up the network of virtual machines",
			"setup-mobile: set up the network of mobile devices",
			"bridge: manage bridges",
			"monitor: watch connections",
			"reset: take all of it back",
		)},
		{"system_log_collector.sh", "Collect, search and keep logs", verbs("logs",
			"collect: collect the logs of this host",
			"search EXPR: search in what was collected",
			"?monitor: watch logs as they are written",
			"audit: show who did what with mobileops",
			"?analyze [security]: summarise what stands out",
			"?export [audit]: write logs for another system",
			"rotate: let go of old logs, and merge small segments",
		)},
		{"update_binaries.sh", "Update this host, and go back", append(verbs("update",
			"check: see whether there are updates",
			"download [NAME]: fetch updates without applying them",
			"backup: keep the installation as it is",
			"list-backups: list what can be gone back to",
		),
			Call{Old: "update", Args: "FILE", New: "update apply", Does: "apply an update, wholly or not at all"},
			Call{Old: "rollback", New: "rollback", Does: "go back to what was before the last update"},
		)},
		{"plugin_manager.sh", "Install and run plugins", append(verbs("plugin",
			"list: list plugins",
			"install NAME: install a plugin",
			"uninstall NAME: remove a plugin",
			"start NAME: start a plugin",
			"stop NAME: stop a plugin",
			"status [NAME]: show how plugins are doing",
			"monitor: watch plugins",
		),
			// Places are made when the first plugin is installed. plugin init is
			// for authors.
			Call{Old: "init", New: "plugin list", Does: "list plugins: nothing has to be prepared any more"},
		)},
		{"platform_launcher.sh", "Start, stop and watch the platform", verbs("platform",
			"?init: prepare this host",
			"?start: start the services",
			"?stop: stop the services",
			"?restart: stop and start the services",
			"?status: show how the services are doing",
			"?health: check that the services answer",
			"?logs: show what the services say",
			"?cleanup: remove what is left of stopped services",
		)},
		{"component_provisioner.sh", "Provision the components of the platform", provisioned(
			"ai-core", "network", "storage", "compliance-policies", "mobile-device-management",
		)},
		{"asset_manager.sh", "Keep assets, checked and encrypted", verbs("asset",
			"?init: prepare a place for assets",
			"?add FILE: add an asset",
			"?remove NAME: remove an asset",
			"?list: list assets",
			"?search PATTERN: search for assets",
			"?verify: check that assets are what was added",
			"?cache: manage the cache",
			"?cleanup: remove what nobody needs",
			"?backup: back assets up",
			"?config [--encrypt-assets true]: show or change how assets are kept",
		)},
		{"ai_core_manager.sh", "Run models and engines", verbs("ai",
			"?start: start the core",
			"?stop: stop the core",
			"?load MODEL: load a model",
			"?unload MODEL: unload a model",
			"?status: show what runs",
			"?health: check that the core answers",
			"?monitor: watch the core",
			"?list-engines: list engines",
			"?list-models: list models",
			"?config [--auth-required true] [--encrypt-models true]: show or change how the core runs",
		)},
		{"test_suite.sh", "Test this host", verbs("test",
			"?security: test the security of this host",
			"?compliance: test against the compliance policies",
			"?compliance-report: write a report on compliance",
			"?performance: measure",
			"?mobile-security: test mobile apps and devices",
			"?report: write a report on the last tests",
			"?all: test everything",
		)},
	}
}

// Named returns the script of a name.
func Named(name string) (Script, bool) {
	if !strings.HasSuffix(name, ".sh") {
		return Script{}, false
	}
	for _, s := range Scripts() {
		if s.Name == name {
			return s, true
		}
	}
	return Script{}, false
}
