package integrity

import (
	"image"
	"image/color"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// rendered is what a terminal shows of a drawing: characters in fg on bg, each
// cell two pixels high, enlarged.
func rendered(code string, fg, bg color.Gray) image.Image {
	const scale = 5
	lines := strings.Split(strings.TrimSuffix(code, "\n"), "\n")
	img := image.NewGray(image.Rect(0, 0, 200*scale, (2*len(lines)+4)*scale))
	for i := range img.Pix {
		img.Pix[i] = 0x20 // the terminal around it is dark
	}
	for row, line := range lines {
		line = strings.TrimSuffix(strings.TrimPrefix(line, "\x1b[38;5;16;48;5;231m"), "\x1b[0m")
		column := 0
		for _, r := range line {
			for half := range 2 {
				c := bg
				if r == '█' || r == '▀' && half == 0 || r == '▄' && half == 1 {
					c = fg
				}
				for y := range scale {
					for x := range scale {
						img.SetGray((column+1)*scale+x, (2*row+half+1)*scale+y, c)
					}
				}
			}
			column++
		}
	}
	return img
}

// A reader of QR codes gets the very line back, from a terminal with colour,
// and from one without, which is dark.
func TestQR(t *testing.T) {
	tool, err := exec.LookPath("zbarimg")
	if err != nil {
		t.Skip("*** NOT RUN: zbarimg is not installed (see make test) ***")
	}
	line := "mobileops-anchor/v1 b21eb85c01dc9011af6e1a126d57381b 18446744073709551615 97243a66d7f7e457acad07d961bb37b10417c71efb6186aceef159b3fcb67f17 2026-11-22T03:39:15Z ERpABBjFgSj+m7aXRi/e3cvq8BdwyLxCJ2++vSjK0K54ONI2Re+InGP1nD28wJa4XQYig+2dxJWrAHeRqiPxCw=="
	for _, inColor := range []bool{true, false} {
		code, err := drawQR(line, inColor)
		if err != nil {
			t.Fatal(err)
		}
		if !inColor && strings.Contains(code, "\x1b") {
			t.Error("control codes without colour")
		}
		fg, bg := color.Gray{0xC0}, color.Gray{0x00}
		if inColor {
			fg, bg = color.Gray{0x00}, color.Gray{0xFF}
		}
		path := filepath.Join(t.TempDir(), "qr.png")
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := png.Encode(f, rendered(code, fg, bg)); err != nil {
			t.Fatal(err)
		}
		f.Close()
		out, err := exec.Command(tool, "-q", "--raw", "--nodbus", path).Output()
		if got := strings.TrimSuffix(string(out), "\n"); err != nil || got != line {
			t.Errorf("colour %v: read %q, %v", inColor, got, err)
		}
	}
	if _, err := drawQR(strings.Repeat("x", 4000), false); err == nil {
		t.Error("a text that is too long")
	}
}
