package export

import _ "embed"

//go:embed page.css
var pageStyle string

// PageStyle returns the style sheet of a report that is a page: what all of them
// share, such as the colours of light, dark and paper, verdict and tiles, and then
// what the page has beside that. Its own sheet sets --width.
func PageStyle(own []byte) []byte { return append([]byte(pageStyle), own...) }
