// The real engine, for tests of other folders that need one.
#pragma once

#include "engine/llama_engine.h"
