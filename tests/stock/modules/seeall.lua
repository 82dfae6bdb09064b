module(..., package.seeall)
x = 5
