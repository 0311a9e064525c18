#!/usr/bin/env bash
# Fails when PROGRAM has an inference library linked in: the gateway must not hold an engine.
set -euo pipefail
program=$1
symbols='\b(llama_(decode|model_load|init)|ggml_(init|graph|backend))'
found=$(nm -C "$program" 2>/dev/null | grep -E "$symbols" | head -5) || true
# A stripped program has no symbols; the library's own messages betray it.
[ -n "$found" ] ||
  found=$(grep -aoE 'llama_decode|ggml_backend_[a-z]+' "$program" | head -5) || true
[ -z "$found" ] || { printf '%s links an engine:\n%s\n' "$program" "$found"; exit 1; }
