// What tests of other folders use of the scripted engine: itself, and its table of cells.
#pragma once

#include "engine/cell_table.h"
#include "engine/scripted_engine.h"
