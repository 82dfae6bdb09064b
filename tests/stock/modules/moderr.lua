error("top level two", 2)
