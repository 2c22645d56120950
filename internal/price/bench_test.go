package price_test

import (
	"testing"

	"carpool/internal/anthropic"
	"carpool/internal/price"
)

func BenchmarkCost(b *testing.B) {
	prices := table(b, price.Overlay{})
	usage := anthropic.Usage{Input: 3, CacheRead: 90_000, CacheWrite5m: 1_200, Output: 400, InferenceGeo: "global", ServiceTier: "standard"}
	for name, r := range map[string]price.Request{
		"plain":   {Served: "claude-opus-5-20260724", Sent: "claude-opus-5", Usage: usage},
		"bedrock": {Provider: price.Bedrock, Served: "claude-opus-4-5", Sent: "arn:aws:bedrock:us-east-1:1:inference-profile/us.anthropic.claude-opus-4-5-20251101-v1:0", Usage: usage},
		"unknown": {Served: "claude-opus-6", Usage: usage},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				prices.Cost(autumn, r)
			}
		})
	}
}

func BenchmarkUpperBound(b *testing.B) {
	prices := table(b, price.Overlay{})
	for name, r := range map[string]price.Request{"plain": {Sent: "claude-opus-5"}, "unknown": {Sent: "prod"}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				prices.UpperBound(autumn, r, price.Bound{Prompt: 90_000, Output: 32_000})
			}
		})
	}
}
