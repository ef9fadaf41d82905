package ui

import (
	"io"

	"github.com/charmbracelet/lipgloss"
	"github.com/muesli/termenv"
)

// Theme styles words. The zero Theme leaves them as they are. Colour repeats
// what a word says and never says anything alone. Only the sixteen colours of
// the terminal's own palette are used, so they are readable on any background.
type Theme struct{ styles *styles }

type styles struct {
	heading, faint, good lipgloss.Style
	severity             [5]lipgloss.Style
}

// Theme returns how to style what goes to Out.
func (s *Streams) Theme() Theme { return newTheme(s.Color) }

// ErrTheme returns how to style what goes to Err.
func (s *Streams) ErrTheme() Theme { return newTheme(s.ErrColor) }

func newTheme(color bool) Theme {
	if !color {
		return Theme{}
	}
	// With profile and background given, the renderer never looks for them at
	// the terminal.
	r := lipgloss.NewRenderer(io.Discard)
	r.SetColorProfile(termenv.ANSI)
	r.SetHasDarkBackground(true)
	plain := r.NewStyle().TabWidth(lipgloss.NoTabConversion).Inline(true)
	return Theme{&styles{
		heading: plain.Bold(true),
		faint:   plain.Faint(true),
		good:    plain.Foreground(lipgloss.ANSIColor(2)),
		severity: [5]lipgloss.Style{
			plain.Foreground(lipgloss.ANSIColor(6)),
			plain.Foreground(lipgloss.ANSIColor(4)),
			plain.Foreground(lipgloss.ANSIColor(3)),
			plain.Foreground(lipgloss.ANSIColor(1)),
			plain.Foreground(lipgloss.ANSIColor(1)).Bold(true).Reverse(true),
		},
	}}
}

// Heading styles the title of a part.
func (t Theme) Heading(s string) string {
	if t.styles == nil || s == "" {
		return s
	}
	return t.styles.heading.Render(s)
}

// Faint styles what matters less.
func (t Theme) Faint(s string) string {
	if t.styles == nil || s == "" {
		return s
	}
	return t.styles.faint.Render(s)
}

// Good styles a word that says all is well.
func (t Theme) Good(s string) string {
	if t.styles == nil || s == "" {
		return s
	}
	return t.styles.good.Render(s)
}

// Warn styles a word that asks for attention.
func (t Theme) Warn(s string) string { return t.Severity(2, s) }

// Bad styles a word that says something is wrong.
func (t Theme) Bad(s string) string { return t.Severity(3, s) }

// Severity styles a word by a severity from 0, info, to 4, critical, the
// numbers of finding.Severity.
func (t Theme) Severity(level int, s string) string {
	if t.styles == nil || s == "" {
		return s
	}
	return t.styles.severity[min(max(level, 0), 4)].Render(s)
}
