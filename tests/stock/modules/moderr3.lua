error("top level three", 3)
