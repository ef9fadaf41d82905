#include "textflag.h"

DATA nibble<>+0(SB)/8, $0x0f0f0f0f0f0f0f0f
DATA nibble<>+8(SB)/8, $0x0f0f0f0f0f0f0f0f
DATA nibble<>+16(SB)/8, $0x0f0f0f0f0f0f0f0f
DATA nibble<>+24(SB)/8, $0x0f0f0f0f0f0f0f0f
GLOBL nibble<>(SB), RODATA|NOPTR, $32

// BLOCK leaves in Y4 which windows may stand at the 32 places from SI+AX on:
// for each of the three bytes of a window, the masks of its lower and upper
// nibble are looked up.
#define BLOCK \
	VMOVDQU (SI)(AX*1), Y4  \
	VPSRLW  $4, Y4, Y5      \
	VPAND   Y6, Y4, Y4      \
	VPAND   Y6, Y5, Y5      \
	VPSHUFB Y4, Y0, Y4      \
	VPSHUFB Y5, Y1, Y5      \
	VPAND   Y4, Y5, Y4      \
	VMOVDQU 1(SI)(AX*1), Y7 \
	VPSRLW  $4, Y7, Y8      \
	VPAND   Y6, Y7, Y7      \
	VPAND   Y6, Y8, Y8      \
	VPSHUFB Y7, Y2, Y7      \
	VPSHUFB Y8, Y3, Y8      \
	VPAND   Y7, Y8, Y7      \
	VPAND   Y4, Y7, Y4      \
	VMOVDQU 2(SI)(AX*1), Y7 \
	VPSRLW  $4, Y7, Y8      \
	VPAND   Y6, Y7, Y7      \
	VPAND   Y6, Y8, Y8      \
	VPSHUFB Y7, Y9, Y7      \
	VPSHUFB Y8, Y10, Y8     \
	VPAND   Y7, Y8, Y7      \
	VPAND   Y4, Y7, Y4      \
	VPTEST  Y4, Y4

// func indexWindowAVX2(p *byte, n int, masks *windowMasks) int
TEXT ·indexWindowAVX2(SB), NOSPLIT, $0-32
	MOVQ p+0(FP), SI
	MOVQ n+8(FP), CX
	MOVQ masks+16(FP), DI
	VBROADCASTI128 0(DI), Y0
	VBROADCASTI128 16(DI), Y1
	VBROADCASTI128 32(DI), Y2
	VBROADCASTI128 48(DI), Y3
	VBROADCASTI128 64(DI), Y9
	VBROADCASTI128 80(DI), Y10
	VMOVDQU nibble<>(SB), Y6
	XORQ AX, AX
	SUBQ $32, CX

loop:
	CMPQ AX, CX
	JGT  last
	BLOCK
	JNZ  hit
	ADDQ $32, AX
	JMP  loop

last:
	// What is left overlaps the block before, which held nothing.
	MOVQ CX, AX
	BLOCK
	JNZ  hit
	VZEROUPPER
	MOVQ $-1, ret+24(FP)
	RET

hit:
	VPXOR     Y5, Y5, Y5
	VPCMPEQB  Y5, Y4, Y4
	VPMOVMSKB Y4, R8
	NOTL      R8
	BSFL      R8, R8
	ADDQ      R8, AX
	VZEROUPPER
	MOVQ AX, ret+24(FP)
	RET
