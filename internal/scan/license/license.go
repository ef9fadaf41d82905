// Package license judges the licences of what was found in a target, and writes
// the file that gives credit: "only licensed software, or open-source software with
// proper attribution" is what it is for.
//
// It reads a protocol.Report and nothing else:
//
//   - An Expression is what a package says of its licence, as SPDX writes it (annex D
//     of SPDX 2.3); ParseName reads what people write instead, by the spellings in
//     data/spellings.txt.
//   - A Policy (docs/formats/license-policy.md) says which licences are allowed,
//     must be looked at by somebody, or are denied, and which of them want to be
//     attributed. Judge gives a Verdict for each package, with the reason and the
//     line of the policy that decided. Of OR the best part counts, of AND the worst.
//   - Attribution makes the Notice of a target: each text once, with the packages
//     that it belongs to and the lines that say whose they are. A text that the
//     target does not bring is never made up: the Notice says that it wasn't found,
//     and the verdict is that attribution is missing.
//
// Licences are recognised by their texts in internal/scan/license/classify, which
// only mobileops-scan links.
package license
