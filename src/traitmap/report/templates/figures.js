"use strict";
// Figures of traits, why and which.
