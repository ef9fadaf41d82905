package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"

	"github.com/mobileops/mobileops/internal/trust"
)

// throwaway is a key that lives as long as this process and is never written
// anywhere: nobody can sign anything else with it afterwards.
type throwaway struct {
	public  trust.PublicKey
	private ed25519.PrivateKey
}

func newThrowaway() (*throwaway, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	p, err := trust.NewPublicKey(public)
	return &throwaway{p, private}, err
}

func (k *throwaway) Public() trust.PublicKey { return k.public }

func (k *throwaway) String() string { return "a key made for this build" }

func (k *throwaway) Sign(_ context.Context, message []byte) ([]byte, error) {
	return ed25519.Sign(k.private, message), nil
}
