package compat_test

import (
	"os"
	"strings"
	"testing"

	"github.com/mobileops/mobileops/internal/cli"
	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/cli/compat"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/ui"
)

func tree(t *testing.T) func(script string, args ...string) ([]string, bool, error) {
	t.Helper()
	streams, _, _ := ui.Test(nil)
	a := app.New(streams, func(string) string { return "" })
	root := cli.NewRoot(a)
	return func(name string, args ...string) ([]string, bool, error) {
		s, ok := compat.Named(name)
		if !ok {
			t.Fatalf("no script %s", name)
		}
		return compat.Translate(a, root, s, args)
	}
}

// Every call leads to a command that exists, or is declared pending and says
// so; whoever adds the command is told to remove the word.
func TestEveryCall(t *testing.T) {
	streams, _, _ := ui.Test(nil)
	root := cli.NewRoot(app.New(streams, func(string) string { return "" }))
	translate := tree(t)
	for _, s := range compat.Scripts() {
		seen := make(map[string]bool)
		for _, c := range s.Calls {
			if seen[c.Old] || c.Old == "" || c.New == "" || c.Does == "" || strings.HasSuffix(c.Does, ".") {
				t.Errorf("%s: %+v is doubled or incomplete", s.Name, c)
			}
			seen[c.Old] = true
			args, run, err := translate(s.Name, c.Old, "ARGUMENT", "--flag")
			switch exists := compat.Exists(root, c); {
			case exists && c.Pending:
				t.Errorf(`%s: "mobileops %s" exists: take the mark of the pending off in scripts.go, and renew the guide: go generate ./cmd/mobileops`, c.OldCall(s), c.New)
			case !exists && !c.Pending:
				t.Errorf(`%s: there is no "mobileops %s", and it is not marked as pending`, c.OldCall(s), c.New)
			case exists:
				want := strings.Join(append(strings.Fields(c.New), append(c.With, "ARGUMENT", "--flag")...), " ")
				if got := strings.Join(args, " "); !run || err != nil || got != want {
					t.Errorf("%s became %q (%v), want %q", c.OldCall(s), got, err, want)
				}
			case run || failure.KindOf(err) != failure.NotReady || !strings.Contains(err.Error(), c.New):
				t.Errorf("%s is pending and said %v", c.OldCall(s), err)
			}
		}
	}
}

// The calls that stand in the platform's own documents.
func TestDocumentedCalls(t *testing.T) {
	known := make(map[string]compat.Call)
	for _, s := range compat.Scripts() {
		for _, c := range s.Calls {
			known[s.Name+" "+c.Old] = c
		}
	}
	for call, want := range map[string]string{
		"toolbox_integrity_check.sh check":                       "integrity check",
		"toolbox_integrity_check.sh baseline":                    "integrity baseline",
		"toolbox_integrity_check.sh verify":                      "integrity verify",
		"toolbox_integrity_check.sh scan-mobile-app":             "integrity scan-mobile-app",
		"ai_core_manager.sh config --auth-required true":         "ai config",
		"ai_core_manager.sh config --encrypt-models true":        "ai config",
		"ai_core_manager.sh load threat-detection-model":         "ai load",
		"asset_manager.sh config --encrypt-assets true":          "asset config",
		"component_provisioner.sh compliance-policies":           "component provision",
		"component_provisioner.sh mobile-device-management":      "component provision",
		"network_configure.sh isolate":                           "network isolate",
		"network_configure.sh isolate-threat <threat_id>":        "network isolate-threat",
		"network_configure.sh monitor":                           "network monitor",
		"network_configure.sh setup-container":                   "network setup-container",
		"network_configure.sh setup-vm":                          "network setup-vm",
		"platform_launcher.sh restart":                           "platform restart",
		"platform_launcher.sh stop":                              "platform stop",
		"plugin_manager.sh install incident-response-plugin":     "plugin install",
		"plugin_manager.sh install rbac-plugin":                  "plugin install",
		"plugin_manager.sh install siem-integration-plugin":      "plugin install",
		"plugin_manager.sh install siem-plugin":                  "plugin install",
		"plugin_manager.sh install threat-intelligence-plugin":   "plugin install",
		"plugin_manager.sh install vulnerability-scanner-plugin": "plugin install",
		"system_log_collector.sh analyze":                        "logs analyze",
		"system_log_collector.sh analyze security":               "logs analyze",
		"system_log_collector.sh audit":                          "logs audit",
		"system_log_collector.sh collect":                        "logs collect",
		"system_log_collector.sh export audit":                   "logs export",
		"system_log_collector.sh monitor":                        "logs monitor",
		"system_log_collector.sh search \"suspicious_activity\"": "logs search",
		"test_suite.sh compliance":                               "test compliance",
		"test_suite.sh compliance-report":                        "test compliance-report",
		"test_suite.sh mobile-security":                          "test mobile-security",
		"test_suite.sh performance":                              "test performance",
		"test_suite.sh security":                                 "test security",
		"update_binaries.sh check":                               "update check",
		"update_binaries.sh rollback":                            "rollback",
		"update_binaries.sh update security-patches.tar.gz":      "update apply",
	} {
		words := strings.Fields(call)
		c, ok := known[words[0]+" "+words[1]]
		if !ok || c.New != want {
			t.Errorf("%s: %+v, want %s", call, c, want)
		}
	}
}

func TestTheTenScripts(t *testing.T) {
	if n := len(compat.Scripts()); n != 10 {
		t.Errorf("%d scripts", n)
	}
	for _, name := range []string{"mobileops", "x.sh", "toolbox_integrity_check", ""} {
		if _, ok := compat.Named(name); ok {
			t.Errorf("%q is a script", name)
		}
	}
}

func TestHelpAndMistakes(t *testing.T) {
	translate := tree(t)
	if _, run, err := translate("network_configure.sh"); run || failure.KindOf(err) != failure.Usage {
		t.Errorf("without a command: %v", err)
	}
	if _, run, err := translate("network_configure.sh", "--help"); run || err != nil {
		t.Errorf("help: %v", err)
	}
	if _, run, err := translate("network_configure.sh", "isolat"); run || failure.KindOf(err) != failure.Usage || !strings.Contains(err.Error(), `did you mean "isolate"? see: network_configure.sh --help`) {
		t.Errorf("a mistake: %v", err)
	}
}

func TestTheGuideIsInStep(t *testing.T) {
	guide, err := os.ReadFile("../../../docs/migrating-from-scripts.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(guide), compat.Table()) {
		t.Error("docs/migrating-from-scripts.md does not hold the table of this mobileops; renew it: go generate ./cmd/mobileops")
	}
}
