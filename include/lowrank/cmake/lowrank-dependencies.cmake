# What another library's absence means: in the project's own tree the configuration stops; a package that was found by
# find_package is then not found. Either way the Debian package is named.
macro(lowrank_missing what debian)
  set(lowrank_message "lowrank needs ${what}, which was not found. On Debian: apt-get install ${debian}")
  if(DEFINED CMAKE_FIND_PACKAGE_NAME)
    set(${CMAKE_FIND_PACKAGE_NAME}_FOUND FALSE)
    set(${CMAKE_FIND_PACKAGE_NAME}_NOT_FOUND_MESSAGE "${lowrank_message}")
  else()
    message(FATAL_ERROR "${lowrank_message}")
  endif()
endmacro()

# lowrank_require(<cmake package> <Debian package>)
macro(lowrank_require package debian)
  find_package(${package} QUIET)
  if(NOT ${package}_FOUND)
    lowrank_missing(${package} ${debian})
  endif()
endmacro()

# lowrank_require_library(<library> <header> <Debian package>): the same for a library without a CMake package; makes
# an imported target of the library's name.
macro(lowrank_require_library library header debian)
  find_path(LOWRANK_${library}_INCLUDE ${header})
  find_library(LOWRANK_${library}_LIBRARY ${library})
  if(NOT LOWRANK_${library}_INCLUDE OR NOT LOWRANK_${library}_LIBRARY)
    lowrank_missing(${library} ${debian})
  elseif(NOT TARGET ${library})
    add_library(${library} UNKNOWN IMPORTED)
    set_target_properties(${library} PROPERTIES IMPORTED_LOCATION ${LOWRANK_${library}_LIBRARY}
                                                INTERFACE_INCLUDE_DIRECTORIES ${LOWRANK_${library}_INCLUDE})
  endif()
endmacro()
