// Package architecture holds no program: its tests hold the house to its
// layout. They read the source of every package and fail with the file and
// line of what is out of place. docs/architecture.md explains the layout.
package architecture

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

const module = "github.com/mobileops/mobileops"

// maxLines keeps files short enough to be read in one go.
const maxLines = 500

// goPackage is what go list tells about a package.
type goPackage struct {
	Dir          string
	Name         string
	ImportPath   string
	GoFiles      []string
	IgnoredFiles []string `json:"IgnoredGoFiles"` // other systems and programs that generate
	TestGoFiles  []string
	XTestGoFiles []string
	Imports      []string
}

// name is the import path within the module: "internal/ui".
func (p *goPackage) name() string {
	return strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
}

// packages lists the packages of the module, once, those that link Trivy included.
var packages = sync.OnceValues(func() ([]*goPackage, error) {
	cmd := exec.Command("go", "list", "-json=Dir,Name,ImportPath,GoFiles,IgnoredGoFiles,TestGoFiles,XTestGoFiles,Imports", "./...")
	cmd.Dir = filepath.Join("..", "..")
	cmd.Env = append(os.Environ(), "GOEXPERIMENT=jsonv2")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	var list []*goPackage
	for dec := json.NewDecoder(strings.NewReader(string(out))); dec.More(); {
		p := new(goPackage)
		if err := dec.Decode(p); err != nil {
			return nil, err
		}
		list = append(list, p)
	}
	return list, nil
})

func allPackages(t *testing.T) []*goPackage {
	t.Helper()
	list, err := packages()
	if err != nil {
		t.Fatal(err)
	}
	if len(list) < 5 {
		t.Fatalf("only %d packages: this looks at the wrong tree", len(list))
	}
	return list
}

// vocabulary are the small packages that every engine may use.
var vocabulary = []string{
	"internal/archive", "internal/audit", "internal/buildinfo", "internal/change", "internal/document", "internal/durable", "internal/failure",
	"internal/finding", "internal/netlink", "internal/osthread", "internal/ruleset", "internal/seal", "internal/spelling", "internal/state",
	"internal/supervise", "internal/threat", "internal/trust",
}

// layer says where in the house a package is. A program beside the product,
// such as one that measures or one that generates code, is a tool: it may use
// everything, and talks to whoever runs it.
func (p *goPackage) layer() string {
	if l := layer(p.name()); p.Name != "main" || l == "cmd" || l == "worker" || l == "bundled" {
		return l
	}
	return "tool"
}

// layer is the layer by the import path alone.
func layer(name string) string {
	first := func(prefix string) bool { return name == prefix || strings.HasPrefix(name, prefix+"/") }
	switch {
	case first("cmd/mobileops-scan"):
		return "worker"
	case first("internal/scan/trivy"):
		return "trivy"
	case first("cmd"):
		return "cmd"
	case first("internal/cli"):
		return "cli"
	case first("internal/ui"):
		return "ui"
	case first("internal/config"):
		return "config"
	case first("internal/architecture"), first("internal/network/lab"), first("internal/update/powercut"), first("packaging"):
		return "checks"
	case first("pkg"):
		return "pkg"
	case slices.ContainsFunc(vocabulary, first):
		return "vocabulary"
	case first("plugins"):
		return "bundled"
	case first("bench"):
		return "tool"
	case first("internal"):
		return "engine"
	}
	return "unknown"
}

// mayImport are the arrows: cmd → cli → engines → vocabulary → pkg. ui and
// config belong to the command line; main makes the streams. What other
// programs import (pkg) stands on its own, and plugins that come with the
// product (bundled) have nothing that those of others do not have. Trivy would
// slow every start, so that what links it (trivy) is for the executable that
// mobileops starts (worker), and for nobody else.
var mayImport = map[string][]string{
	"cmd":        {"cli", "ui", "vocabulary"},
	"worker":     {"worker", "trivy", "engine", "vocabulary", "pkg"},
	"trivy":      {"trivy", "engine", "vocabulary", "pkg"},
	"cli":        {"cli", "ui", "config", "engine", "vocabulary", "pkg"},
	"ui":         {"ui", "vocabulary"},
	"config":     {"config", "vocabulary"},
	"engine":     {"engine", "vocabulary", "pkg"},
	"vocabulary": {"vocabulary", "pkg"},
	"pkg":        {"pkg"},
	"bundled":    {"bundled", "pkg"},
	"tool":       {"engine", "vocabulary", "pkg"},
	"checks":     {"cli", "ui", "config", "engine", "vocabulary", "pkg"},
}

// engineOf returns the noun that an engine package belongs to.
func engineOf(name string) string {
	parts := strings.SplitN(name, "/", 3)
	return parts[1]
}

func TestImportsPointOneWay(t *testing.T) {
	for _, p := range allPackages(t) {
		from := p.layer()
		if from == "unknown" {
			t.Errorf("%s: no package belongs there; see docs/architecture.md", p.name())
			continue
		}
		for _, imp := range p.Imports {
			to, ours := strings.CutPrefix(imp, module+"/")
			switch {
			case !ours:
			case !slices.Contains(mayImport[from], layer(to)):
				t.Errorf("%s (%s) imports %s (%s)", p.name(), from, to, layer(to))
			case from == "engine" && layer(to) == "engine" && engineOf(p.name()) != engineOf(to):
				t.Errorf("%s imports %s: engines know each other through the vocabulary alone", p.name(), to)
			case (from == "worker" || from == "trivy") && layer(to) == "engine" && engineOf(to) != "scan":
				t.Errorf("%s imports %s: it is for scans alone", p.name(), to)
			}
		}
	}
}

// libraries are those that belong to one place, by the beginning of their
// import path. The product uses those without a place in tests alone.
var libraries = map[string][]string{
	"github.com/spf13/cobra":        {"cli"},
	"github.com/spf13/pflag":        {"cli", "bundled"},
	"github.com/spf13/viper":        {"config"},
	"github.com/charmbracelet/":     {"ui"},
	"github.com/muesli/termenv":     {"ui"},
	"github.com/mattn/go-runewidth": {"ui", "cli"},
	"golang.org/x/term":             {"ui"},
	"github.com/aquasecurity/":      {"trivy", "worker"},
	"flag":                          nil,
	"log":                           nil,
	"testing":                       {"checks"},
	"github.com/rogpeppe/go-internal/testscript": nil,
	"github.com/santhosh-tekuri/":                nil,
	"github.com/creack/pty":                      nil,
}

func TestLibrariesStayInTheirPlace(t *testing.T) {
	for _, p := range allPackages(t) {
		if p.layer() == "tool" {
			continue
		}
		for _, imp := range p.Imports {
			for lib, layers := range libraries {
				if (imp == lib || strings.HasPrefix(imp, lib) && strings.Contains(lib, ".")) && !slices.Contains(layers, p.layer()) {
					t.Errorf("%s imports %s: that belongs to %q", p.name(), imp, layers)
				}
			}
		}
	}
}

// TestTrivyStaysOutside keeps Trivy out of the program that is started at every
// press of Tab, by whatever way it could come in.
func TestTrivyStaysOutside(t *testing.T) {
	cmd := exec.Command("go", "list", "-deps", "./cmd/mobileops")
	cmd.Dir = filepath.Join("..", "..")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(out), module+"/internal/cli\n") {
		t.Fatal("this looks at the wrong program")
	}
	for dep := range strings.Lines(string(out)) {
		if strings.HasPrefix(dep, "github.com/aquasecurity/") || strings.HasPrefix(dep, module+"/internal/scan/trivy") {
			t.Errorf("cmd/mobileops depends on %s", strings.TrimSpace(dep))
		}
	}
	// And what links it is looked at here.
	if !slices.ContainsFunc(allPackages(t), func(p *goPackage) bool { return p.layer() == "trivy" }) {
		t.Error("the packages that link Trivy are not seen")
	}
}

// process are the ways by which a package could talk to the terminal, look at
// the command line or end the program behind the back of the command line.
var process = map[string][]string{
	"os":  {"Exit", "Stdout", "Stderr", "Stdin", "Args", "Getenv", "LookupEnv", "Environ", "ExpandEnv"},
	"fmt": {"Print", "Printf", "Println", "Scan", "Scanf", "Scanln"},
}

func TestEnginesTouchNoTerminal(t *testing.T) {
	eachFile(t, func(p *goPackage, name string, fset *token.FileSet, file *ast.File) {
		switch p.layer() {
		case "engine", "vocabulary", "pkg", "config", "trivy":
		default:
			return
		}
		if p.name() == "pkg/pluginsdk" {
			return // what it is for is to be told by the environment
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok {
				if id, ok := call.Fun.(*ast.Ident); ok && (id.Name == "print" || id.Name == "println") && id.Obj == nil {
					t.Errorf("%s: %s", fset.Position(n.Pos()), id.Name)
				}
			}
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if id, ok := sel.X.(*ast.Ident); ok && id.Obj == nil && slices.Contains(process[id.Name], sel.Sel.Name) {
				t.Errorf("%s: %s.%s: an engine is given what it needs and returns what it found", fset.Position(n.Pos()), id.Name, sel.Sel.Name)
			}
			return true
		})
	})
}

// TestStartIsCheap keeps work out of the start of the program: completion and
// cron call it all the time.
func TestStartIsCheap(t *testing.T) {
	eachFile(t, func(p *goPackage, name string, fset *token.FileSet, file *ast.File) {
		if l := p.layer(); l == "trivy" || l == "worker" {
			return // Trivy takes longer than whatever this could add
		}
		for _, decl := range file.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				if d.Name.Name == "init" && d.Recv == nil {
					t.Errorf("%s: func init runs at every start", fset.Position(d.Pos()))
				}
			case *ast.GenDecl:
				ast.Inspect(d, func(n ast.Node) bool {
					if _, ok := n.(*ast.FuncLit); ok {
						return false // runs later
					}
					if sel, ok := n.(*ast.SelectorExpr); ok && sel.Sel.Name == "MustCompile" {
						t.Errorf("%s: compiled at every start: put it in a sync.OnceValue", fset.Position(n.Pos()))
					}
					return true
				})
			}
		}
	})
}

func TestEveryPackageTellsItsStory(t *testing.T) {
	documented := map[string]bool{}
	eachFile(t, func(p *goPackage, _ string, _ *token.FileSet, file *ast.File) {
		text := file.Doc.Text()
		documented[p.name()] = documented[p.name()] ||
			strings.HasPrefix(text, "Package "+file.Name.Name+" ") || file.Name.Name == "main" && strings.HasPrefix(text, "Command ")
	})
	for name, ok := range documented {
		if !ok {
			t.Errorf("%s has no comment that begins with \"Package …\" and tells what it is for", name)
		}
	}
}

// vague are names that say nothing about what is inside.
var vague = []string{"util", "utils", "common", "helper", "helpers", "manager", "base", "misc", "shared", "types", "lib", "core", "stuff"}

func TestNamesSayWhatIsInside(t *testing.T) {
	for _, p := range allPackages(t) {
		if slices.Contains(vague, filepath.Base(p.ImportPath)) {
			t.Errorf("%s: a package is named after the noun that it is about", p.name())
		}
		for _, f := range slices.Concat(p.GoFiles, p.IgnoredFiles, p.TestGoFiles, p.XTestGoFiles) {
			stem := strings.TrimSuffix(strings.TrimSuffix(f, ".go"), "_test")
			if slices.Contains(vague, stem) {
				t.Errorf("%s/%s: a file is named after the one thing in it", p.name(), f)
			}
		}
	}
}

var generated = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`(?m)^// Code generated .* DO NOT EDIT\.$`) })

func TestFilesAreShort(t *testing.T) {
	for _, p := range allPackages(t) {
		for _, f := range slices.Concat(p.GoFiles, p.IgnoredFiles) {
			data, err := os.ReadFile(filepath.Join(p.Dir, f))
			if err != nil {
				t.Fatal(err)
			}
			if exempt := generated().Match(data) || strings.HasPrefix(string(data), "//go:build ignore\n"); exempt {
				continue // written by a program, or the program that does
			}
			if n := strings.Count(string(data), "\n"); n > maxLines {
				t.Errorf("%s/%s has %d lines: it holds more than one thing", p.name(), f, n)
			}
		}
	}
}

func TestNothingIsLeftForLater(t *testing.T) {
	eachFile(t, func(_ *goPackage, _ string, fset *token.FileSet, file *ast.File) {
		for _, group := range file.Comments {
			for _, c := range group.List {
				for _, word := range []string{"TODO", "FIXME", "XXX"} {
					if strings.Contains(c.Text, word) {
						t.Errorf("%s: %s: do it, or say why it is safe to leave", fset.Position(c.Pos()), word)
					}
				}
			}
		}
	})
}

// eachFile parses every file of the product, without tests and generators.
func eachFile(t *testing.T, f func(p *goPackage, name string, fset *token.FileSet, file *ast.File)) {
	t.Helper()
	for _, p := range allPackages(t) {
		for _, name := range p.GoFiles {
			fset := token.NewFileSet()
			file, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			f(p, name, fset, file)
		}
	}
}
