package main

import "fmt"

// columns writes the kernel for n lanes, state word i of all lanes in register
// i, message word i in register 16+i.
func columns(class string, n int) {
	name := fmt.Sprintf("columns%d", n)
	r := func(i int) string { return fmt.Sprint(class, i) }
	head(name)
	for i := range n {
		address(i, "R8")
		op("MOVQ", "R8", fmt.Sprintf("job_addresses+%d(SI)", 8*i))
	}
	start()

	line("\t// K1: the last lane. K2: the lanes whose counter goes up.")
	op("MOVL", "job_lastLane(SI)", flags)
	op("XORL", scratch, scratch)
	op("BTSL", flags, scratch)
	op("KMOVW", scratch, "K1")
	op("MOVL", "job_counted(SI)", scratch)
	op("KMOVW", scratch, "K2")
	for i := range 8 {
		op("VPBROADCASTD", fmt.Sprintf("iv<>+%d(SB)", 4*i), r(i))
	}
	table("iv", iv)

	line("\nblock:")
	message := transposeIn(class, n)
	for i := range 4 {
		op("VPBROADCASTD", fmt.Sprintf("iv<>+%d(SB)", 4*i), r(8+i))
	}
	op("VPBROADCASTD", "job_counter(SI)", r(12))
	var index []uint32
	for i := range 16 {
		index = append(index, uint32(i))
	}
	op("VPADDD", table("lanes", index), r(12), "K2", r(12))
	op("VPBROADCASTD", "job_counter+4(SI)", r(13))
	op("VPBROADCASTD", table("blockLen", []uint32{64, 64}), r(14))
	blockFlags(name)
	op("VPBROADCASTD", flags, r(15))
	op("CMPQ", tailBlocks, "$1")
	op("JNE", "compress")
	op("VPBROADCASTD", "job_tailLen(SI)", "K1", r(14))
	op("VPBROADCASTD", tailFlags, "K1", r(15))

	line("\ncompress:")
	// The hardware does not see a pattern in 16 streams 1 KiB apart: ask for
	// the memory job.ahead further on, one line at a time, as the processor
	// has but few buffers for lines on their way.
	op("MOVQ", "job_ahead(SI)", "R9")
	op("ADDQ", offset, "R9")
	fetched := 0
	prefetch := func() {
		if fetched < n {
			op("MOVQ", fmt.Sprintf("job_addresses+%d(SI)", 8*fetched), "R8")
			op("PREFETCHT0", "(R8)(R9*1)")
			fetched++
		}
	}
	for round := range rounds {
		line("\t// round %d", round+1)
		m := func(i int) string { return message[i] }
		quarter := func(d, first int) {
			// Four independent G functions, instruction by instruction.
			a, b, c, e := [4]string{}, [4]string{}, [4]string{}, [4]string{}
			for i := range 4 {
				a[i], b[i], c[i], e[i] = r(i), r(4+(i+d)%4), r(8+(i+2*d)%4), r(12+(i+3*d)%4)
			}
			half := func(word, rotD, rotB int) {
				each := func(f func(i int)) {
					for i := range 4 {
						f(i)
					}
				}
				each(func(i int) { op("VPADDD", m(first+2*i+word), a[i], a[i]) })
				prefetch()
				each(func(i int) { op("VPADDD", b[i], a[i], a[i]) })
				each(func(i int) { op("VPXORD", a[i], e[i], e[i]) })
				each(func(i int) { op("VPRORD", fmt.Sprint("$", rotD), e[i], e[i]) })
				each(func(i int) { op("VPADDD", e[i], c[i], c[i]) })
				each(func(i int) { op("VPXORD", c[i], b[i], b[i]) })
				each(func(i int) { op("VPRORD", fmt.Sprint("$", rotB), b[i], b[i]) })
			}
			half(0, 16, 12)
			half(1, 8, 7)
		}
		quarter(0, 0)
		quarter(1, 8)
		var permuted [16]string
		for i, p := range permutation {
			permuted[i] = message[p]
		}
		message = permuted
	}
	for i := range 8 {
		op("VPXORD", r(8+i), r(i), r(i))
	}

	line("\t// If the last lane is done before the others, put its value aside.")
	op("CMPQ", tailBlocks, "$1")
	op("JNE", "done")
	op("CMPQ", blocks, "$1")
	op("JEQ", "done")
	op("MOVQ", "pad+24(FP)", scratch)
	for i := range 8 {
		op("VMOVDQU32", r(i), fmt.Sprintf("%d(%s)", 64*i, scratch))
	}
	line("\ndone:")
	next()
	op("TESTQ", tailBlocks, tailBlocks)
	op("JEQ", "store")
	op("MOVQ", "pad+24(FP)", scratch)
	for i := range 8 {
		op("VMOVDQU32", fmt.Sprintf("%d(%s)", 64*i, scratch), "K1", r(i))
	}
	line("\nstore:")
	transposeOut(class, n)
	op("VZEROUPPER")
	op("RET")
}

// transposeIn loads a block of each lane and transposes: it returns the
// registers that hold the message words. Registers 8 to 15 are free for it.
func transposeIn(class string, n int) (message [16]string) {
	r := func(i int) string { return fmt.Sprint(class, i) }
	address := func(lane int) string {
		p := []string{"R8", "R9", "R10", "R11"}[lane%4]
		op("MOVQ", fmt.Sprintf("job_addresses+%d(SI)", 8*lane), p)
		return p
	}
	if n == 16 {
		var reg [16]string
		for i := range 16 {
			p := address(i)
			op("VMOVDQU32", fmt.Sprintf("(%s)(%s*1)", p, offset), r(16+i))
			reg[i] = r(16 + i)
		}
		free := r(8)
		// both puts low of registers a and b in place of a, high in place of b.
		both := func(low, high func(dst string, a, b string), a, b int) {
			low(free, reg[a], reg[b])
			high(reg[b], reg[a], reg[b])
			free, reg[a] = reg[a], free
		}
		unpack := func(kind string) (l, h func(dst, a, b string)) {
			return func(dst, a, b string) { op("VPUNPCKL"+kind, b, a, dst) },
				func(dst, a, b string) { op("VPUNPCKH"+kind, b, a, dst) }
		}
		shuffle := func(dst, a, b string) { op("VSHUFI32X4", "$0x88", b, a, dst) }
		shuffleOdd := func(dst, a, b string) { op("VSHUFI32X4", "$0xdd", b, a, dst) }
		dl, dh := unpack("DQ")
		ql, qh := unpack("QDQ")
		for g := 0; g < 16; g += 4 {
			both(dl, dh, g, g+1)
			both(dl, dh, g+2, g+3)
			both(ql, qh, g, g+2)
			both(ql, qh, g+1, g+3)
			// 128-bit lane l of reg[g+w] holds word 4l+w' of four lanes,
			// w' = w with its two bits swapped.
		}
		for w := range 4 {
			both(shuffle, shuffleOdd, w, 4+w)
			both(shuffle, shuffleOdd, 8+w, 12+w)
			both(shuffle, shuffleOdd, w, 8+w)
			both(shuffle, shuffleOdd, 4+w, 12+w)
			word := []int{0, 2, 1, 3}[w]
			// Even 128-bit lanes went to the first, odd ones to the second
			// of each pair, twice.
			message[word], message[8+word] = reg[w], reg[8+w]
			message[4+word], message[12+word] = reg[4+w], reg[12+w]
		}
		// The renaming left one message word in register 8 to 15: give the
		// state its registers back.
		for i := range message {
			if message[i] == r(8) {
				op("VMOVDQA32", r(8), free)
				message[i] = free
			}
		}
		return message
	}
	// Eight lanes: lane i and lane i+4 share a register from the start.
	for i := range 4 {
		p, q := address(i), ""
		for part := range 4 {
			op("VMOVDQU32", fmt.Sprintf("%d(%s)(%s*1)", 16*part, p, offset), fmt.Sprint("X", 16+4*part+i))
		}
		q = address(4 + i)
		for part := range 4 {
			reg := r(16 + 4*part + i)
			op("VINSERTI32X4", "$1", fmt.Sprintf("%d(%s)(%s*1)", 16*part, q, offset), reg, reg)
		}
	}
	for part := range 4 {
		a, b, c, d := r(16+4*part), r(17+4*part), r(18+4*part), r(19+4*part)
		t := []string{r(8), r(9), r(10), r(11)}
		op("VPUNPCKLDQ", b, a, t[0])
		op("VPUNPCKHDQ", b, a, t[1])
		op("VPUNPCKLDQ", d, c, t[2])
		op("VPUNPCKHDQ", d, c, t[3])
		op("VPUNPCKLQDQ", t[2], t[0], a)
		op("VPUNPCKHQDQ", t[2], t[0], b)
		op("VPUNPCKLQDQ", t[3], t[1], c)
		op("VPUNPCKHQDQ", t[3], t[1], d)
		copy(message[4*part:], []string{a, b, c, d})
	}
	return message
}

// transposeOut stores the chaining values, words 0 to 7 of all lanes in
// registers 0 to 7, lane after lane.
func transposeOut(class string, n int) {
	r := func(i int) string { return fmt.Sprint(class, i) }
	// After this, 128-bit lane l of r(16+4g+w) holds words 4g..4g+3 of lane
	// 4l+w.
	for g := range 2 {
		a, b, c, d := r(4*g), r(4*g+1), r(4*g+2), r(4*g+3)
		op("VPUNPCKLDQ", b, a, r(8))
		op("VPUNPCKHDQ", b, a, r(9))
		op("VPUNPCKLDQ", d, c, r(10))
		op("VPUNPCKHDQ", d, c, r(11))
		op("VPUNPCKLQDQ", r(10), r(8), r(16+4*g))
		op("VPUNPCKHQDQ", r(10), r(8), r(17+4*g))
		op("VPUNPCKLQDQ", r(11), r(9), r(18+4*g))
		op("VPUNPCKHQDQ", r(11), r(9), r(19+4*g))
	}
	for w := range 4 {
		low, high := fmt.Sprint(16+w), fmt.Sprint(20+w)
		for l := range n / 4 {
			at := 32 * (4*l + w)
			if l == 0 {
				op("VMOVDQU32", "X"+low, fmt.Sprintf("%d(%s)", at, out))
				op("VMOVDQU32", "X"+high, fmt.Sprintf("%d(%s)", at+16, out))
				continue
			}
			op("VEXTRACTI32X4", imm(l), class+low, fmt.Sprintf("%d(%s)", at, out))
			op("VEXTRACTI32X4", imm(l), class+high, fmt.Sprintf("%d(%s)", at+16, out))
		}
	}
}
